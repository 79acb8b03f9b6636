// SPDX-License-Identifier: Apache-2.0
#include "lib/base/log.h"

#include <cstdio>
#include <mutex>
#include <utility>

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "lib/base/error.h"

namespace stmoe {
namespace {

struct LogState {
  std::mutex mutex;
  std::shared_ptr<spdlog::sinks::sink> console =
      std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  std::shared_ptr<spdlog::sinks::sink> file;
  std::shared_ptr<spdlog::logger> logger = std::make_shared<spdlog::logger>("stmoe", console);
  bool progress_shown = false;

  LogState() {
    console->set_pattern("%^%L%$ %v");
    logger->flush_on(spdlog::level::info);
    // A log that cannot be written (a full disk) is said once, and is no reason to end.
    logger->set_error_handler([told = false](const std::string& what) mutable {
      if (!std::exchange(told, true)) std::fprintf(stderr, "W [log] %s\n", what.c_str());
    });
  }
};

LogState& state() {
  static LogState instance;
  return instance;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
  static constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::trace,
                                                          spdlog::level::debug, spdlog::level::info,
                                                          spdlog::level::warn, spdlog::level::err};
  return kLevels[static_cast<int>(level)];
}

void erase_progress(LogState& log) {
  if (log.progress_shown) std::fputs("\r\x1b[K", stderr);
  log.progress_shown = false;
}

}  // namespace

LogLevel parse_log_level(std::string_view name) {
  static constexpr std::string_view kNames[] = {"trace", "debug", "info", "warn", "error"};
  for (int i = 0; i < 5; ++i)
    if (name == kNames[i]) return static_cast<LogLevel>(i);
  throw UsageError(
      format("--log-level: '{}' is unknown; expected trace, debug, info, warn or error", name));
}

void set_log_level(LogLevel level) { state().logger->set_level(to_spdlog(level)); }

bool log_enabled(LogLevel level) { return state().logger->should_log(to_spdlog(level)); }

void attach_log_file(const std::string& path) {
  detach_log_file();
  LogState& log = state();
  std::lock_guard lock(log.mutex);
  try {
    log.file = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path, /*truncate=*/false);
  } catch (const spdlog::spdlog_ex&) {
    throw StorageError(format("{}: cannot be opened for writing ({}); check permissions and space",
                              path, errno_text(errno)));
  }
  log.file->set_pattern("%Y-%m-%d %H:%M:%S.%e %L %v");
  log.logger->sinks().push_back(log.file);
}

void detach_log_file() {
  LogState& log = state();
  std::lock_guard lock(log.mutex);
  if (!log.file) return;
  try {
    log.file->flush();
  } catch (const spdlog::spdlog_ex&) {  // told when it was logged
  }
  std::erase(log.logger->sinks(), log.file);
  log.file.reset();
}

void log_to_file(LogLevel level, const std::string& text) {
  LogState& log = state();
  std::lock_guard lock(log.mutex);
  if (!log.file) return;
  try {
    log.file->log(spdlog::details::log_msg("stmoe", to_spdlog(level), text));
    log.file->flush();
  } catch (const spdlog::spdlog_ex&) {  // the caller has said it elsewhere
  }
}

bool stderr_is_terminal() {
  static const bool is_terminal = ::isatty(STDERR_FILENO) == 1;
  return is_terminal;
}

void show_progress_line(std::string_view text) {
  if (!stderr_is_terminal()) return;
  LogState& log = state();
  std::lock_guard lock(log.mutex);
  erase_progress(log);
  if (!text.empty()) {
    std::fwrite(text.data(), 1, text.size(), stderr);
    log.progress_shown = true;
  }
  std::fflush(stderr);
}

void log_message(LogLevel level, const std::string& text) {
  LogState& log = state();
  std::lock_guard lock(log.mutex);
  erase_progress(log);
  log.logger->log(to_spdlog(level), "{}", text);
}

}  // namespace stmoe
