// SPDX-License-Identifier: Apache-2.0
#include "lib/config/scalar.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "lib/base/format.h"
#include "lib/base/registry.h"

namespace stmoe {
namespace {

// Parses the whole text (a leading '+' allowed) as a T.
template <class T>
std::errc parse_number(std::string_view text, T& value) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code == std::errc() && end != text.data() + text.size()) return std::errc::invalid_argument;
  return code;
}

bool is_plain(const ConfigNode& node) {
  return node.kind == ConfigNode::Kind::scalar && !node.is_quoted;
}

std::string wrong(const ConfigNode& node, const char* expected) {
  return format("{}, expected {}", node.description(), expected);
}

std::string check_number(const std::vector<Rule>& rules, double value, const std::string& text) {
  for (const Rule& rule : rules) {
    bool is_right = true;
    switch (rule.kind) {
      case Rule::Kind::at_least:
        is_right = value >= rule.low;
        break;
      case Rule::Kind::greater_than:
        is_right = value > rule.low;
        break;
      case Rule::Kind::at_most:
        is_right = value <= rule.high;
        break;
      case Rule::Kind::less_than:
        is_right = value < rule.high;
        break;
      case Rule::Kind::between:
        is_right = value >= rule.low && value <= rule.high;
        break;
      default:
        break;
    }
    if (!is_right) return format("is {}, expected {}", text, describe_rule(rule));
  }
  return "";
}

// Whether YAML reads the bare text as exactly this text.
bool needs_no_quotes(const std::string& text) {
  constexpr std::array kSpecial = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"};
  auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  auto is_safe = [&](char c) {
    return is_letter(c) || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.' || c == '/';
  };
  if (text.empty() || !(is_letter(text[0]) || text[0] == '/')) return false;
  std::string lower = text;
  for (char& c : lower) c = (c >= 'A' && c <= 'Z') ? static_cast<char>(c - 'A' + 'a') : c;
  return std::all_of(text.begin(), text.end(), is_safe) &&
         std::find(kSpecial.begin(), kSpecial.end(), lower) == kSpecial.end();
}

}  // namespace

std::string read_scalar(const ConfigNode& node, bool& value) {
  if (!is_plain(node) || (node.scalar != "true" && node.scalar != "false"))
    return wrong(node, "true or false");
  value = node.scalar == "true";
  return "";
}

std::string read_scalar(const ConfigNode& node, int64_t& value) {
  if (!is_plain(node)) return wrong(node, "an integer");
  int64_t parsed = 0;
  const std::errc code = parse_number(node.scalar, parsed);
  if (code == std::errc::result_out_of_range) return wrong(node, "an integer of 64 bits");
  if (code != std::errc()) {
    constexpr double kExact = 9007199254740992.0;  // 2^53
    double real = 0;
    if (parse_number(node.scalar, real) != std::errc() || !(std::abs(real) <= kExact) ||
        std::trunc(real) != real)
      return wrong(node, "an integer");
    parsed = static_cast<int64_t>(real);
  }
  value = parsed;
  return "";
}

std::string read_scalar(const ConfigNode& node, double& value) {
  double parsed = 0;
  if (!is_plain(node) || parse_number(node.scalar, parsed) != std::errc() || !std::isfinite(parsed))
    return wrong(node, "a number");
  value = parsed;
  return "";
}

std::string read_scalar(const ConfigNode& node, std::string& value) {
  if (node.kind != ConfigNode::Kind::scalar) return wrong(node, "text");
  value = node.scalar;
  return "";
}

std::string read_scalar(const ConfigNode& node, ConfigPath& value) {
  if (node.kind != ConfigNode::Kind::scalar) return wrong(node, "a path");
  value = ConfigPath(node.scalar, node.source.directory);
  return "";
}

std::string write_scalar(bool value) { return value ? "true" : "false"; }

std::string write_scalar(int64_t value) { return format("{}", value); }

std::string write_scalar(double value) {
  std::string text = format("{}", value);
  return text.find_first_not_of("-0123456789") == std::string::npos ? text + ".0" : text;
}

std::string write_scalar(const std::string& value) {
  if (needs_no_quotes(value)) return value;
  std::string text = "\"";
  for (char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      text += format("\\{}", c);
    else if (byte < 0x20 || byte == 0x7f)
      text += format("\\x{:02x}", static_cast<unsigned>(byte));
    else
      text += c;
  }
  return text + '"';
}

std::string write_scalar(const ConfigPath& value) { return write_scalar(value.path().string()); }

std::string check_rules(const std::vector<Rule>&, bool) { return ""; }
std::string check_rules(const std::vector<Rule>&, const ConfigPath&) { return ""; }

std::string check_rules(const std::vector<Rule>& rules, int64_t value) {
  return check_number(rules, static_cast<double>(value), write_scalar(value));
}

std::string check_rules(const std::vector<Rule>& rules, double value) {
  return check_number(rules, value, format("{}", value));
}

std::string check_rules(const std::vector<Rule>& rules, const std::string& value) {
  for (const Rule& rule : rules) {
    if (rule.kind != Rule::Kind::one_of) continue;
    if (std::find(rule.names.begin(), rule.names.end(), value) != rule.names.end()) continue;
    const std::string nearest = nearest_name(value, rule.names);
    return format("is '{}', expected {}{}", value, describe_rule(rule),
                  nearest.empty() ? "" : format("; did you mean {}?", nearest));
  }
  return "";
}

std::string describe_rule(const Rule& rule) {
  switch (rule.kind) {
    case Rule::Kind::at_least:
      return format("at least {}", rule.low);
    case Rule::Kind::greater_than:
      return format("more than {}", rule.low);
    case Rule::Kind::at_most:
      return format("at most {}", rule.high);
    case Rule::Kind::less_than:
      return format("less than {}", rule.high);
    case Rule::Kind::between:
      return format("between {} and {}", rule.low, rule.high);
    case Rule::Kind::one_of:
      return format("one of {}", fmt::join(rule.names, ", "));
    case Rule::Kind::shorthand:
      break;
  }
  return "";
}

}  // namespace stmoe
