// SPDX-License-Identifier: Apache-2.0
// The progress of a long job over bytes: a line on a terminal, else a log line now and then.
#pragma once

#include <cstdint>
#include <string>

#include "lib/base/clock.h"

namespace stmoe {

class Progress {
 public:
  Progress(std::string action, uint64_t total_bytes);
  // Ends the line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `tokens` made so far; 0 when the job makes none.
  void show(uint64_t bytes_done, uint64_t tokens = 0);

 private:
  std::string text(uint64_t bytes_done, uint64_t tokens) const;

  std::string action_;
  uint64_t total_bytes_;
  double interval_;
  Stopwatch clock_;
  double next_ = 0;
};

}  // namespace stmoe
