// SPDX-License-Identifier: Apache-2.0
// stmoe-gpu-check: measurements and checks of a GPU in the order of what hangs on them, each a
// subcommand that ends within a minute and writes JSON lines. The emulated device takes the same
// way through the code with tiny shapes: there the figures mean nothing, but everything runs.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "lib/base/clock.h"
#include "lib/base/files.h"
#include "lib/tensor/tensor.h"

namespace stmoe::check {

using Json = nlohmann::ordered_json;

struct Settings {
  Device device = Device::cpu;
  bool is_tiny = false;
  double seconds = 55;  // for one subcommand
  uint64_t seed = 1;
  Path recipes;                      // the folder recipes/
  Path train, held_out, vocabulary;  // real text, for the loss curves
  Path scratch;                      // a folder for files that are not kept
  std::vector<std::string> rows;     // of a list, those wanted; all when empty
  Stopwatch watch;

  bool has_time(double needed = 0) const { return watch.seconds() + needed < seconds; }
  bool wants(const std::string& row) const {
    return rows.empty() || std::find(rows.begin(), rows.end(), row) != rows.end();
  }
};

// Where the lines of one subcommand go: {"item", "name", "values", "unit", "commit", "device",
// "clocks", "seed", "time"}.
class Report {
 public:
  Report(std::string item, const Settings& settings);
  void line(const std::string& name, Json values, const std::string& unit = "");
  // A part that could not be done: the line says why, and what follows goes on.
  void failed(const std::string& name, const std::string& why);
  // Something that must hold; false makes the program end with exit code 1.
  void require(bool holds) { is_passed_ = is_passed_ && holds; }
  bool is_passed() const { return is_passed_; }

 private:
  std::string item_, device_;
  Json seed_;
  bool has_clocks_, is_passed_ = true;
};

// What the device was asked for so far is done when it returns.
void wait_for(Device device);
// Random values of any sequence (zeros run faster), made on the device but for the first million.
Tensor random_tensor(const Shape& shape, DType dtype, Device device, uint64_t seed);
// All bytes of tensors, hashed in order.
std::string hash_of(const std::vector<NamedTensor>& tensors);

struct Timing {
  double median = 0, least = 0, most = 0;  // seconds of one call
  int64_t calls = 0;                       // of one sample
};
// Warmed up; by events of the device where it has them, with the work asked for ahead, so that the
// host's part does not show.
Timing time_on(Device device, const std::function<void()>& call);
Json to_json(const Timing& timing);

// Copy bandwidth (bytes read and written) and speed of products of this process, measured once.
struct Ceilings {
  double copy = 0, product = 0;
};
const Ceilings& ceilings(Device device);

// The subcommands.
void check_environment(const Settings& settings, Report& report);
void check_model(const Settings& settings, Report& report);
void check_determinism(const Settings& settings, Report& report);
void study_products(const Settings& settings, Report& report);
void time_kernels(const Settings& settings, Report& report);
void time_steps(const Settings& settings, Report& report);
void compare_precisions(const Settings& settings, Report& report);
void check_memory(const Settings& settings, Report& report);

}  // namespace stmoe::check
