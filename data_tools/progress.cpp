// SPDX-License-Identifier: Apache-2.0
#include "data_tools/progress.h"

#include <algorithm>

#include "lib/base/log.h"

namespace stmoe {

Progress::Progress(std::string action, uint64_t total_bytes)
    : action_(std::move(action)),
      total_bytes_(total_bytes),
      interval_(stderr_is_terminal() ? 0.2 : 30),
      next_(interval_) {}

Progress::~Progress() { show_progress_line(""); }

void Progress::show(uint64_t bytes_done, uint64_t tokens) {
  if (clock_.seconds() < next_) return;
  next_ = clock_.seconds() + interval_;
  if (stderr_is_terminal())
    show_progress_line(text(bytes_done, tokens));
  else
    log_info("[data] {}", text(bytes_done, tokens));
}

std::string Progress::text(uint64_t bytes_done, uint64_t tokens) const {
  const double done = static_cast<double>(bytes_done), total = static_cast<double>(total_bytes_);
  const double seconds = clock_.seconds();
  const double left = done > 0 ? seconds * std::max(total - done, 0.0) / done : 0;
  std::string line = format("{}: {:.0f} of {:.0f} MB ({:.0f}%)", action_, done / 1e6, total / 1e6,
                            total > 0 ? 100 * done / total : 100);
  if (tokens > 0)
    line += format(", {:.2f} million tokens/s", static_cast<double>(tokens) / seconds / 1e6);
  return line + format(", {:.0f} s left", left);
}

}  // namespace stmoe
