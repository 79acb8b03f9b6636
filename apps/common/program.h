// SPDX-License-Identifier: Apache-2.0
// What every executable shares: --help, --version, --log-level, --device, --threads, signals, and
// the exit code of an error. A program is
//   int main(int argc, char** argv) {
//     return stmoe::run_program(argc, argv, {.name = "stmoe-x", .summary = "..."},
//     [](stmoe::Command& command) {...});
//   }
#pragma once

#include <string>

#include "apps/common/command.h"
#include "lib/base/stop_request.h"
#include "lib/tensor/device.h"

namespace stmoe {

struct ProgramInfo {
  std::string name;     // "stmoe-pretrain"
  std::string summary;  // one sentence for --help
  // SIGTERM, SIGUSR1 and the first SIGINT only set ProgramContext::stop, which the program must
  // look at; otherwise they end the process at once.
  bool stops_on_request = false;
};

// What a command is run with.
struct ProgramContext {
  const StopRequest& stop;
  Device device = Device::cpu;
  std::string device_reason;  // why this device, for the log
};

// Parses the arguments, runs the chosen command and returns the exit code of contract.md; errors go
// to standard error.
int run_program(int argc, char** argv, const ProgramInfo& info,
                const std::function<void(Command&)>& define);

}  // namespace stmoe
