// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/dtype.h"

namespace stmoe {
namespace {
constexpr std::string_view kNames[] = {"f64", "f32", "bf16", "i64", "i32", "u8", "i16"};
constexpr size_t kSizes[] = {8, 4, 2, 8, 4, 1, 2};
}  // namespace

size_t size_of(DType dtype) { return kSizes[static_cast<int>(dtype)]; }

std::string_view name_of(DType dtype) { return kNames[static_cast<int>(dtype)]; }

DType parse_dtype(std::string_view name) {
  for (int i = 0; i < 7; ++i)
    if (name == kNames[i]) return static_cast<DType>(i);
  throw UsageError(
      format("element type '{}' is unknown; known: {}", name, fmt::join(kNames, ", ")));
}

}  // namespace stmoe
