// SPDX-License-Identifier: Apache-2.0
// Between command.cpp and program.cpp: the parser's life, without its library.
#pragma once

#include "apps/common/command.h"

namespace stmoe {

// What parsing came to: a command to run, or a text for standard output (--help, --version).
struct ParsedCommand {
  std::function<void(const ProgramContext&)> body;
  std::string output;
};

std::unique_ptr<Command> make_command(const std::string& name, const std::string& summary,
                                      const std::string& version_text);

// Throws UsageError for arguments that do not fit.
ParsedCommand parse_arguments(Command& command, int argc, const char* const* argv);

}  // namespace stmoe
