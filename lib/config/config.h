// SPDX-License-Identifier: Apache-2.0
// Typed configs from YAML. A component declares a struct with a field list (see field.h) and, when
// fields depend on each other, `void validate(Problems& problems) const`. Recipes inherit by `base:
// other.yaml` and --set overrides them; every mistake is reported with file and line, all in one
// UsageError. No code reads YAML by key.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/config/choice.h"
#include "lib/config/field.h"

namespace stmoe {

namespace detail {
void load_config(ConfigRef config, const Path& file, const std::vector<std::string>& overrides);
void parse_config(ConfigRef config, std::string_view yaml, const Path& origin);
void validate_config(ConfigRef config);
std::string print_config(ConfigRef config);
std::string config_reference(ConfigRef config);
}  // namespace detail

// Reads a recipe with what it inherits; `overrides` are --set values: "a.b=value", the value being
// YAML.
template <class T>
T load_config(const Path& file, const std::vector<std::string>& overrides = {}) {
  T config;
  detail::load_config(detail::config_ref(config), file, overrides);
  return config;
}

// The same from text; `origin` names it in messages, and paths and bases are relative to its
// directory.
template <class T>
T parse_config(std::string_view yaml, const Path& origin) {
  T config;
  detail::parse_config(detail::config_ref(config), yaml, origin);
  return config;
}

// Checks the ranges and cross-field rules of a config made in code; throws UsageError.
template <class T>
void validate_config(const T& config) {
  T copy = config;
  detail::validate_config(detail::config_ref(copy));
}

// The complete config as YAML, defaults included, paths absolute; parsing it gives the same config.
template <class T>
std::string print_config(const T& config) {
  T copy = config;
  return detail::print_config(detail::config_ref(copy));
}

// Every key of T with its type, default, range and meaning, as Markdown tables; plug-ins included.
template <class T>
std::string config_reference() {
  T defaults;
  return detail::config_reference(detail::config_ref(defaults));
}

}  // namespace stmoe
