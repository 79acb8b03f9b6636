// SPDX-License-Identifier: Apache-2.0
// Two ways to compute attention on a GPU (the CPU has one of its own): with the scores of whole
// heads written to memory, or in one kernel each way that never does.
#pragma once

#include <cstdint>
#include <string_view>

namespace stmoe {

// `automatic` is `fused` where it is offered: bf16, d_kv 64 or 128, up to 8192 queries and keys.
enum class AttentionMethod : uint8_t { automatic, materialised, fused };

// auto, materialised, fused.
std::string_view name_of(AttentionMethod method);
// Throws UsageError listing the names.
AttentionMethod parse_attention_method(std::string_view name);

}  // namespace stmoe
