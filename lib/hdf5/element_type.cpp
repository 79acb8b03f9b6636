// SPDX-License-Identifier: Apache-2.0
#include "lib/hdf5/element_type.h"

#include <array>

#include "lib/base/error.h"

namespace stmoe {
namespace {

constexpr std::array<std::string_view, 11> kNames = {"f64", "f32", "bf16", "i64", "i32", "i16",
                                                     "i8",  "u64", "u32",  "u16", "u8"};
constexpr std::array<size_t, 11> kSizes = {8, 4, 2, 8, 4, 2, 1, 8, 4, 2, 1};

}  // namespace

size_t size_of(ElementType type) { return kSizes[static_cast<size_t>(type)]; }

std::string_view name_of(ElementType type) { return kNames[static_cast<size_t>(type)]; }

ElementType parse_element_type(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<ElementType>(i);
  }
  throw UsageError(format("element type '{}': expected one of {}", name, fmt::join(kNames, ", ")));
}

}  // namespace stmoe
