// SPDX-License-Identifier: Apache-2.0
// The compiler's cpu_supports asks the processor and, for vector registers, the operating system
// (XGETBV).
#include "lib/base/cpu_level.h"

#include <algorithm>
#include <cstdlib>
#include <span>

#include "lib/base/error.h"

namespace stmoe {
namespace {

constexpr std::string_view kNames[kNumCpuLevels] = {"portable", "avx2", "avx512", "avx512_bf16"};

CpuLevel chosen_level() {
  const char* wanted = std::getenv("STMOE_CPU");
  return wanted && *wanted ? parse_cpu_level(wanted, highest_cpu_level()) : highest_cpu_level();
}

CpuLevel scope_level = CpuLevel::avx512_bf16;

}  // namespace

std::string_view name_of(CpuLevel level) { return kNames[static_cast<int>(level)]; }

CpuLevel highest_cpu_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("x86-64-v3")) return CpuLevel::portable;
  if (!__builtin_cpu_supports("x86-64-v4")) return CpuLevel::avx2;
  return __builtin_cpu_supports("avx512bf16") ? CpuLevel::avx512_bf16 : CpuLevel::avx512;
#else
  return CpuLevel::portable;
#endif
}

CpuLevel cpu_level() {
  static const CpuLevel level = chosen_level();
  return std::min(level, scope_level);
}

CpuLevel parse_cpu_level(std::string_view name, CpuLevel highest) {
  const std::span known(kNames, static_cast<size_t>(highest) + 1);
  for (int i = 0; i < kNumCpuLevels; ++i) {
    if (name != kNames[i]) continue;
    if (static_cast<CpuLevel>(i) <= highest) return static_cast<CpuLevel>(i);
    throw UsageError(
        format("STMOE_CPU: this processor has no {}; it has: {}", name, fmt::join(known, ", ")));
  }
  throw UsageError(
      format("STMOE_CPU: '{}' is unknown; this processor has: {}", name, fmt::join(known, ", ")));
}

CpuLevelScope::CpuLevelScope(CpuLevel level) : before_(scope_level) {
  scope_level = std::min(level, before_);
}
CpuLevelScope::~CpuLevelScope() { scope_level = before_; }

}  // namespace stmoe
