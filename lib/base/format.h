// SPDX-License-Identifier: Apache-2.0
// The one place that includes the formatting library (GCC 12 has no <format>).
#pragma once

#if !defined(__CUDACC__)
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace stmoe {
using fmt::format;
}
#else
// nvcc cannot compile {fmt} 9 as C++20. What the headers that kernels include need of it are the
// texts of checks: "{}" by a number or a string, in order; what stands after ':' is ignored.
#include <string>
#include <string_view>

namespace stmoe {
namespace detail {

inline std::string text_of(std::string_view value) { return std::string(value); }
template <class T>
std::string text_of(const T& value) requires requires {
  std::to_string(value);
}
{ return std::to_string(value); }

inline std::string format_next(std::string_view pattern) { return std::string(pattern); }
template <class First, class... Rest>
std::string format_next(std::string_view pattern, const First& first, const Rest&... rest) {
  const size_t open = pattern.find('{'), close = pattern.find('}', open);
  if (open == std::string_view::npos || close == std::string_view::npos)
    return std::string(pattern);
  return std::string(pattern.substr(0, open)) + text_of(first) +
         format_next(pattern.substr(close + 1), rest...);
}

}  // namespace detail

template <class... Arguments>
std::string format(std::string_view pattern, const Arguments&... arguments) {
  return detail::format_next(pattern, arguments...);
}

}  // namespace stmoe
#endif
