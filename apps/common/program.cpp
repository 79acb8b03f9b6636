// SPDX-License-Identifier: Apache-2.0
#include "apps/common/program.h"

#include <cstdio>
#include <new>

#include "apps/common/command_parser.h"
#include "apps/common/device_choice.h"
#include "apps/common/signals.h"
#include "apps/common/version.h"
#include "lib/base/error.h"
#include "lib/base/log.h"
#include "lib/base/threads.h"

namespace stmoe {
namespace {

struct SharedFlags {
  std::string log_level = "info";
  std::string device = "auto";
  std::optional<int64_t> threads;

  void define(Command& command) {
    command.add("--log-level", &log_level, "Lowest level that is logged (default info)",
                {.one_of = {"trace", "debug", "info", "warn", "error"}});
    command.add("--device", &device,
                "Where to compute (default auto: CUDA when built in and a device can be used, else "
                "the CPU)",
                {.one_of = {"auto", "cpu", "cuda"}, .hidden = {"emu"}});
    command.add("--threads", &threads, "CPU threads (default: the cores this process is bound to)",
                {.at_least = 1, .at_most = 4096});
  }
};

// The one stop request of this process; a signal may come at any time, so it is never destroyed.
StopRequest& stop_request() {
  static StopRequest* request = new StopRequest;
  return *request;
}

void run_command(int argc, char** argv, const ProgramInfo& info,
                 const std::function<void(Command&)>& define) {
  auto command = make_command(info.name, info.summary, version_report(info.name));
  SharedFlags flags;
  define(*command);
  flags.define(*command);
  const ParsedCommand parsed = parse_arguments(*command, argc, argv);
  if (!parsed.output.empty()) {
    std::fputs(parsed.output.c_str(), stdout);
    return;
  }
  report_file_size_limit_as_error();
  set_log_level(parse_log_level(flags.log_level));
  if (flags.threads) set_num_threads(static_cast<int>(*flags.threads));
  const DeviceChoice device = choose_device(flags.device);
  if (info.stops_on_request) stop_on_signals(stop_request());
  parsed.body({stop_request(), device.device, device.reason});
}

// Results that could not be written (a full disk behind a redirection) are an error, not silence.
void flush_results() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    throw StorageError(
        format("standard output: cannot be written ({}); check the free space", errno_text(errno)));
}

int report(ExitCode code, const std::string& text) {
  show_progress_line("");
  std::fflush(stdout);
  std::string lines = code == ExitCode::interrupted ? text : "error: " + text;
  while (lines.ends_with('\n')) lines.pop_back();
  for (size_t at = 0; (at = lines.find('\n', at)) != std::string::npos; ++at)
    lines.insert(at + 1, "       ");  // further lines stand under the first
  std::fprintf(stderr, "%s\n", lines.c_str());
  return static_cast<int>(code);
}

std::string bug_text(const std::string& program, const std::string& what) {
  return format("{}\nthis is a defect of {} {}: please report it with the command and this message",
                what, program, version_text());
}

}  // namespace

int run_program(int argc, char** argv, const ProgramInfo& info,
                const std::function<void(Command&)>& define) {
  try {
    run_command(argc, argv, info, define);
    flush_results();
    return 0;
  } catch (const Error& error) {
    const bool is_bug = error.code() == ExitCode::bug;
    return report(error.code(), is_bug ? bug_text(info.name, error.what()) : error.what());
  } catch (const std::bad_alloc&) {
    return report(ExitCode::bug,
                  "out of memory; lower data.batch_size or raise train.accumulate, or use a "
                  "machine with more "
                  "memory\nif it should have been enough, please report it with the command");
  } catch (const std::exception& error) {
    return report(ExitCode::bug, bug_text(info.name, error.what()));
  } catch (...) {
    return report(ExitCode::bug, bug_text(info.name, "an error of unknown type was thrown"));
  }
}

}  // namespace stmoe
