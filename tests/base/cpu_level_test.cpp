// SPDX-License-Identifier: Apache-2.0
#include "lib/base/cpu_level.h"

#include <catch2/catch.hpp>

#include "lib/base/error.h"

namespace stmoe {

TEST_CASE("a CPU level that is unknown or missing is an error that lists those there are",
          "[base][cpu_level]") {
  CHECK(parse_cpu_level("portable", CpuLevel::portable) == CpuLevel::portable);
  CHECK(parse_cpu_level("avx512", CpuLevel::avx512_bf16) == CpuLevel::avx512);
  CHECK_THROWS_WITH(parse_cpu_level("sse9", CpuLevel::avx2),
                    "STMOE_CPU: 'sse9' is unknown; this processor has: portable, avx2");
  CHECK_THROWS_WITH(parse_cpu_level("avx512", CpuLevel::avx2),
                    "STMOE_CPU: this processor has no avx512; it has: portable, avx2");
  CHECK_THROWS_AS(parse_cpu_level("AVX2", CpuLevel::avx2), UsageError);
}

TEST_CASE("a scope lowers the CPU level and never raises it", "[base][cpu_level]") {
  const CpuLevel before = cpu_level();
  CHECK(before <= highest_cpu_level());
  {
    CpuLevelScope lowest(CpuLevel::portable);
    CHECK(cpu_level() == CpuLevel::portable);
    CpuLevelScope higher(CpuLevel::avx2);
    CHECK(cpu_level() == CpuLevel::portable);
  }
  CHECK(cpu_level() == before);
}

}  // namespace stmoe
