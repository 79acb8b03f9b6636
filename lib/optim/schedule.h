// SPDX-License-Identifier: Apache-2.0
// The learning rate by step, chosen by the recipe's `schedule.kind`. Steps count updates from 0.
#pragma once

#include <memory>

#include "lib/base/registry.h"
#include "lib/config/config.h"

namespace stmoe {

class Schedule {
 public:
  struct Factory {
    ConfigBox (*make_config)();
    // `total_steps`: the length of the run, for schedules that end with it.
    std::unique_ptr<Schedule> (*make)(const ConfigBox& config, int64_t total_steps);
  };
  static constexpr const char* kKind = "schedule";

  virtual ~Schedule() = default;
  virtual double rate(int64_t step) const = 0;
};

std::unique_ptr<Schedule> make_schedule(const Choice<Schedule>& choice, int64_t total_steps);

}  // namespace stmoe
