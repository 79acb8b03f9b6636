// SPDX-License-Identifier: Apache-2.0
#include "lib/train/memory_plan.h"

#include <algorithm>
#include <fstream>

#include <sys/resource.h>
#include <unistd.h>

#include "lib/base/format.h"
#include "lib/ops/scratch.h"

namespace stmoe {
namespace {

double mib(double bytes) { return bytes / (1 << 20); }

int64_t bytes_of(const ParameterList& parameters) {
  int64_t total = 0;
  for (const Parameter& parameter : parameters) {
    total += static_cast<int64_t>(parameter.value.weight().bytes());
    if (parameter.value.rounded().defined())
      total += static_cast<int64_t>(parameter.value.rounded().bytes());
  }
  return total;
}

int64_t bytes_of(const Optimizer& optimizer) {
  int64_t total = 0;
  for (const NamedTensor& state : optimizer.state())
    total += static_cast<int64_t>(state.tensor.bytes());
  return total;
}

}  // namespace

std::string MemoryPlan::text() const {
  auto mib = [](int64_t bytes) { return stmoe::mib(static_cast<double>(bytes)); };
  return format(
      "planned {:.0f} MiB: weights {:.0f}, optimizer {:.0f}, step {:.0f} ({:.0f} alive at once), "
      "scratch {:.0f}, program {:.0f}",
      mib(total()), mib(weights), mib(optimizer), mib(step), mib(step_lower_bound), mib(scratch),
      mib(program));
}

int64_t measure_program_bytes(const ParameterList& parameters, const Optimizer& optimizer) {
  return std::max<int64_t>(0, resident_bytes() - bytes_of(parameters) - bytes_of(optimizer) -
                                  static_cast<int64_t>(scratch_bytes()));
}

std::string alive_table(const StepArena& arena) {
  std::string text =
      format("{:22} {:9} {:>10} {:>8}\n", "alive at the peak", "pass", "MiB", "tensors");
  for (const StepArena::AlivePart& part : arena.alive_at_peak())
    text += format("{:22} {:9} {:10.1f} {:8}\n", *part.maker.op ? part.maker.op : "outside ops",
                   part.maker.pass == OpScope::Pass::forward ? "forward" : "backward",
                   mib(static_cast<double>(part.bytes)), part.tensors);
  return text;
}

MemoryPlan plan_memory(int64_t program_bytes, const ParameterList& parameters,
                       const Optimizer& optimizer, const StepArena& arena) {
  MemoryPlan plan;
  plan.program = program_bytes;
  plan.weights = bytes_of(parameters);
  plan.optimizer = bytes_of(optimizer);
  plan.step = static_cast<int64_t>(arena.planned_bytes());
  plan.step_lower_bound = static_cast<int64_t>(arena.peak_live_bytes());
  plan.scratch = static_cast<int64_t>(scratch_bytes());
  return plan;
}

int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t pages = 0, resident = 0;
  file >> pages >> resident;
  return file ? resident * ::sysconf(_SC_PAGESIZE) : 0;
}

int64_t peak_resident_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

}  // namespace stmoe
