// SPDX-License-Identifier: Apache-2.0
// The whole of a pretraining run: resume, train, log, evaluate, save, stop.
#pragma once

#include <optional>
#include <string>

#include "lib/base/files.h"
#include "lib/base/stop_request.h"
#include "lib/recipe/recipe.h"

namespace stmoe {

struct PretrainOptions {
  Path output;                   // the run directory
  std::optional<int64_t> steps;  // end here instead of at train.steps
  std::string resume = "auto";   // auto, never, or a directory
  Device device = Device::cpu;
  bool profile = false;            // steps 3 to 12 of this process, in profile.txt and trace.json
  std::optional<Path> trace = {};  // instead of trace.json of the run directory
};

// Throws InterruptedError after a requested stop was saved, DivergedError, and what reading and
// writing throw.
void pretrain(const Recipe& recipe, const PretrainOptions& options, const StopRequest& stop);

}  // namespace stmoe
