// SPDX-License-Identifier: Apache-2.0
// Plain values between YAML text and C++, and the rules they must obey.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/config/field.h"
#include "lib/config/node.h"

namespace stmoe {

// Each sets `value` and returns "", or returns what is wrong ("is 'x', expected an integer").
// Integers may be written as 1e6 when that is exact; booleans are true and false only.
std::string read_scalar(const ConfigNode& node, bool& value);
std::string read_scalar(const ConfigNode& node, int64_t& value);
std::string read_scalar(const ConfigNode& node, double& value);
std::string read_scalar(const ConfigNode& node, std::string& value);
std::string read_scalar(const ConfigNode& node, ConfigPath& value);

// YAML text that reads back as exactly the same value.
std::string write_scalar(bool value);
std::string write_scalar(int64_t value);
std::string write_scalar(double value);
std::string write_scalar(const std::string& value);
std::string write_scalar(const ConfigPath& value);

// What is wrong with the value by the field's rules, or "".
std::string check_rules(const std::vector<Rule>& rules, bool value);
std::string check_rules(const std::vector<Rule>& rules, int64_t value);
std::string check_rules(const std::vector<Rule>& rules, double value);
std::string check_rules(const std::vector<Rule>& rules, const std::string& value);
std::string check_rules(const std::vector<Rule>& rules, const ConfigPath& value);

// The rule in words, as in "at least 1"; "" for a rule that does not limit values.
std::string describe_rule(const Rule& rule);

inline const char* type_name(const bool&) { return "true or false"; }
inline const char* type_name(const int64_t&) { return "integer"; }
inline const char* type_name(const double&) { return "number"; }
inline const char* type_name(const std::string&) { return "text"; }
inline const char* type_name(const ConfigPath&) { return "path"; }

}  // namespace stmoe
