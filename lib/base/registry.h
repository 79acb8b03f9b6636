// SPDX-License-Identifier: Apache-2.0
// Plug-ins by name: routers, optimizers, schedules, tasks, importers. A plug-in registers itself in
// its own file:
//   STMOE_REGISTER(Router, "top_k", make_top_k_router)
// A second registration of a name is an error at start that names both files; an unknown name lists
// the known ones.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/error.h"

namespace stmoe {

[[noreturn]] void fail_duplicate_name(std::string_view kind, std::string_view name,
                                      std::string_view first_file, std::string_view second_file);
[[noreturn]] void fail_unknown_name(std::string_view kind, std::string_view name,
                                    const std::vector<std::string>& known);
// The candidate nearest to `name` by edit distance, or "" when none is near enough to be meant.
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

// `Kind` has a nested type `Factory` (what is registered) and `static constexpr const char* kKind`
// (its name in errors).
template <class Kind>
class Registry {
 public:
  using Factory = typename Kind::Factory;

  static bool add(const std::string& name, Factory factory, const char* file) {
    auto [entry, is_new] = entries().try_emplace(name, Entry{std::move(factory), file});
    if (!is_new) fail_duplicate_name(Kind::kKind, name, entry->second.file, file);
    return true;
  }
  // Throws UsageError listing the known names.
  static const Factory& get(std::string_view name) {
    auto entry = entries().find(std::string(name));
    if (entry == entries().end()) fail_unknown_name(Kind::kKind, name, names());
    return entry->second.factory;
  }
  static bool contains(std::string_view name) { return entries().contains(std::string(name)); }
  static std::vector<std::string> names() {
    std::vector<std::string> all;
    for (const auto& [name, entry] : entries()) all.push_back(name);
    return all;
  }

 private:
  struct Entry {
    Factory factory;
    const char* file;
  };
  static std::map<std::string, Entry>& entries() {
    static std::map<std::string, Entry> instance;
    return instance;
  }
};

}  // namespace stmoe

#define STMOE_CONCAT_INNER(a, b) a##b
#define STMOE_CONCAT(a, b) STMOE_CONCAT_INNER(a, b)
#define STMOE_REGISTER(Kind, name, ...)                                          \
  [[maybe_unused]] static const bool STMOE_CONCAT(stmoe_registered_, __LINE__) = \
      ::stmoe::Registry<Kind>::add(name, __VA_ARGS__, __FILE__);
