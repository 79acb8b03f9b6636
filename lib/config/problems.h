// SPDX-License-Identifier: Apache-2.0
// What is wrong with a config, collected so that a user sees every mistake of a recipe at once. A
// line reads
//   recipes/pretrain/base.yaml:42: moe.capacity_factr: unknown key; did you mean capacity_factor?
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/format.h"

namespace stmoe {

class Problems {
 public:
  // `key` is relative to the Config struct being checked ("router.k" reaches into a section); ""
  // means the struct itself.
  void add(std::string_view key, const std::string& text);
  template <class Arg, class... Args>
  void add(std::string_view key, fmt::format_string<Arg, Args...> text, Arg&& arg, Args&&... args) {
    add(key, format(text, std::forward<Arg>(arg), std::forward<Args>(args)...));
  }
  // A line that already says where.
  void add_line(std::string line) { lines_.push_back(std::move(line)); }

  bool empty() const { return lines_.empty(); }
  const std::vector<std::string>& lines() const { return lines_; }
  // Throws one UsageError with a line for each problem, if there are any.
  void throw_if_any() const;

  // Where a full key path was set: "file.yaml:12" or "--set a.b"; used by the reader of configs.
  using Locator = std::function<std::string(const std::string& path)>;
  void set_locator(Locator locator) { locator_ = std::move(locator); }
  // Keys added from now on are relative to `path`; returns the one before.
  std::string enter_section(std::string path) { return std::exchange(section_, std::move(path)); }

 private:
  std::vector<std::string> lines_;
  std::string section_;
  Locator locator_;
};

// "a.b" from "a" and "b"; an empty part adds nothing.
std::string join_keys(std::string_view section, std::string_view key);

}  // namespace stmoe
