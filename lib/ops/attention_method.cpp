// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/attention_method.h"

#include "lib/base/error.h"
#include "lib/base/format.h"

namespace stmoe {

namespace {

constexpr AttentionMethod kMethods[] = {AttentionMethod::automatic, AttentionMethod::materialised,
                                        AttentionMethod::fused};

}  // namespace

std::string_view name_of(AttentionMethod method) {
  switch (method) {
    case AttentionMethod::materialised:
      return "materialised";
    case AttentionMethod::fused:
      return "fused";
    default:
      return "auto";
  }
}

AttentionMethod parse_attention_method(std::string_view name) {
  for (AttentionMethod method : kMethods)
    if (name == name_of(method)) return method;
  throw UsageError(
      format("attention method '{}': expected auto, materialised or fused", std::string(name)));
}

}  // namespace stmoe
