// SPDX-License-Identifier: Apache-2.0
// A small model on the device against the same on the CPU: the first loss, all gradients, the
// losses of twenty updates; and that the device's results hang on nothing but the seed: fifty
// updates twice, as graphs and kernel by kernel, uninterrupted and through a checkpoint.
#include <cmath>

#include "tests/cuda/check/models.h"

namespace stmoe::check {
namespace {

struct Difference {
  double relative = 0;  // of the norms
  std::string name;
};

struct FirstStep {
  double loss = 0;
  std::vector<NamedTensor> gradients;  // on the CPU
};

FirstStep first_step(const Recipe& recipe, const Settings& settings, Device device) {
  StepRunner runner(recipe, device, ParameterStore::Mode::initialized);
  const StepLosses losses = runner.compute(small_batch(recipe, settings.seed, 0), 0).losses;
  FirstStep result;
  result.loss = losses.cross_entropy / static_cast<double>(losses.target_tokens);
  for (const Parameter& parameter : runner.parameters())
    result.gradients.push_back(
        {parameter.name, parameter.value.grad().on(Device::cpu).contiguous().clone_to_heap()});
  runner.finish();
  return result;
}

// ||a - b|| / ||b|| of each gradient; the largest.
Difference largest_difference(const std::vector<NamedTensor>& ours,
                              const std::vector<NamedTensor>& theirs) {
  Difference worst;
  for (size_t i = 0; i < ours.size(); ++i) {
    const Tensor a = ours[i].tensor.to(DType::f64), b = theirs[i].tensor.to(DType::f64);
    double difference = 0, norm = 0;
    for (size_t j = 0; j < a.span<double>().size(); ++j) {
      const double x = a.span<double>()[j], y = b.span<double>()[j];
      difference += (x - y) * (x - y);
      norm += y * y;
    }
    const double relative = std::sqrt(difference / std::max(norm, 1e-30));
    if (!(relative <= worst.relative)) worst = {relative, ours[i].name};
  }
  return worst;
}

void compare_with_cpu(const Settings& settings, Report& report, const std::string& compute,
                      double loss_tolerance, double gradient_tolerance) {
  const Recipe recipe = small_recipe(settings, {"precision.compute=" + compute});
  const FirstStep ours = first_step(recipe, settings, settings.device),
                  cpu = first_step(recipe, settings, Device::cpu);
  const Difference gradients = largest_difference(ours.gradients, cpu.gradients);
  const double first = std::abs(ours.loss - cpu.loss) / cpu.loss;

  SmallRun there(recipe, settings.device, settings.seed), here(recipe, Device::cpu, settings.seed);
  const int steps = settings.is_tiny ? 4 : 20;
  double worst = 0;
  Json losses = Json::array(), expected_losses = Json::array();
  for (int i = 0; i < steps; ++i) {
    losses.push_back(there.step());
    expected_losses.push_back(here.step());
    const double y = expected_losses.back();
    worst = std::max(worst, std::abs(losses.back().get<double>() - y) / y);
  }
  const bool holds = first <= loss_tolerance && gradients.relative <= gradient_tolerance &&
                     worst <= 5 * loss_tolerance;
  report.require(holds);
  report.line(compute,
              {{"first_loss_difference", first},
               {"largest_gradient_difference", gradients.relative},
               {"gradient", gradients.name},
               {"largest_loss_difference", worst},
               {"steps", steps},
               {"losses", losses},
               {"cpu_losses", expected_losses},
               {"passed", holds}},
              "relative");
}

struct Course {
  std::string hash;
  double last_loss = 0;
  bool is_recorded = false;
};

Course run_course(const Recipe& recipe, const Settings& settings, int steps,
                  const Path& checkpoint_at_half = {}) {
  auto run = std::make_unique<SmallRun>(recipe, settings.device, settings.seed);
  Course course;
  for (int i = 0; i < steps; ++i) {
    if (i == steps / 2 && !checkpoint_at_half.empty()) {
      run->save(checkpoint_at_half);
      run = std::make_unique<SmallRun>(recipe, settings.device, settings.seed);
      run->step();  // what restore() must undo
      run->restore(checkpoint_at_half);
    }
    course.last_loss = run->step();
  }
  course.is_recorded = run->runner().is_recorded();
  std::vector<NamedTensor> all = run->weights();
  for (NamedTensor& slot : run->state()) all.push_back(std::move(slot));
  course.hash = hash_of(all);
  return course;
}

}  // namespace

void check_model(const Settings& settings, Report& report) {
  compare_with_cpu(settings, report, "f32", 2e-5, 2e-3);
  // One token that goes to another expert by rounding changes an expert's gradient by a tenth.
  compare_with_cpu(settings, report, "bf16", 5e-3, 2.5e-1);
}

void check_determinism(const Settings& settings, Report& report) {
  const int steps = settings.is_tiny ? 4 : 50;
  for (const std::string compute : {"f32", "bf16"}) {
    if (settings.is_tiny && compute == "f32") continue;
    const Recipe recipe = small_recipe(settings, {"precision.compute=" + compute}),
                 eager =
                     small_recipe(settings, {"precision.compute=" + compute, "cuda.graphs=off"});
    const Course first = run_course(recipe, settings, steps);
    const auto add = [&](const char* name, const Course& other) {
      const bool holds = other.hash == first.hash;
      report.require(holds);
      report.line(compute + ", " + name, {{"steps", steps},
                                          {"equal_bytes", holds},
                                          {"hash", other.hash},
                                          {"first_hash", first.hash},
                                          {"is_graph", other.is_recorded},
                                          {"last_loss", other.last_loss}});
    };
    add("twice", run_course(recipe, settings, steps));
    add("kernel by kernel", run_course(eager, settings, steps));
    add("through a checkpoint",
        run_course(recipe, settings, steps, settings.scratch / ("determinism-" + compute)));
  }
}

}  // namespace stmoe::check
