// SPDX-License-Identifier: Apache-2.0
// Logging to standard error and, once attached, to a run's log.txt. Results never go through here:
// they are printed on standard output by the executables. Messages begin with an area in brackets:
// "[data] ...".
#pragma once

#include <string>
#include <string_view>

#include "lib/base/format.h"

namespace stmoe {

enum class LogLevel { trace, debug, info, warn, error };

// Parses a level's name; throws UsageError listing the names.
LogLevel parse_log_level(std::string_view name);
void set_log_level(LogLevel level);
bool log_enabled(LogLevel level);

// Copies every message with its time to `path` (appended) until detached; throws StorageError when
// it cannot be opened.
void attach_log_file(const std::string& path);
void detach_log_file();
// To the attached file alone; nowhere when there is none.
void log_to_file(LogLevel level, const std::string& text);

// While a progress line is on the terminal, messages first erase it. `text` without a newline;
// empty ends the line. Does nothing when standard error is not a terminal.
void show_progress_line(std::string_view text);
bool stderr_is_terminal();

void log_message(LogLevel level, const std::string& text);

template <class... Args>
void log_debug(fmt::format_string<Args...> text, Args&&... args) {
  if (log_enabled(LogLevel::debug))
    log_message(LogLevel::debug, format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> text, Args&&... args) {
  if (log_enabled(LogLevel::info))
    log_message(LogLevel::info, format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_warn(fmt::format_string<Args...> text, Args&&... args) {
  log_message(LogLevel::warn, format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> text, Args&&... args) {
  log_message(LogLevel::error, format(text, std::forward<Args>(args)...));
}

}  // namespace stmoe
