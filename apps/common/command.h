// SPDX-License-Identifier: Apache-2.0
// The command line of a program: its arguments, its subcommands and what they run. The parser
// library stays inside command.cpp. Values are written to the variables given, which keep their
// contents when the argument is absent.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lib/base/files.h"

namespace stmoe {

struct ProgramContext;

using ArgumentValue =
    std::variant<bool*, int64_t*, double*, std::string*, Path*, std::optional<int64_t>*,
                 std::optional<double>*, std::optional<std::string>*, std::optional<Path>*,
                 std::vector<std::string>*, std::vector<Path>*>;

struct ArgumentRules {
  bool required = false;
  std::optional<double> at_least = {}, at_most = {};
  std::vector<std::string> one_of = {};
  std::vector<std::string> hidden = {};  // values besides one_of that are told to nobody
  // The value of an option given without one; another one is given as --name=VALUE only.
  std::optional<std::string> implied = {};
};

class Command {
 public:
  class Parser;  // defined in command.cpp
  explicit Command(std::unique_ptr<Parser> parser);
  ~Command();
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  // "--name" is an option with one value, a flag when `value` is a bool, and may be given many
  // times when it is a list; without dashes it is positional: "corpus". Integers may be written as
  // 1e6.
  void add(const std::string& name, ArgumentValue value, const std::string& help,
           const ArgumentRules& rules = {});
  // A full command line, shown at the end of --help.
  void example(const std::string& line);
  // A subcommand; when a program has any and no `run` of its own, one must be given.
  Command& subcommand(const std::string& name, const std::string& help);
  // What this command does once its arguments are read.
  void run(std::function<void(const ProgramContext&)> body);

 private:
  friend class Parser;
  std::unique_ptr<Parser> parser_;
};

}  // namespace stmoe
