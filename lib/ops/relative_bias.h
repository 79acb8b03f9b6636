// SPDX-License-Identifier: Apache-2.0
// T5's learned relative position bias as one value per head and relative position
// (reference/architecture.md 2). The bias depends on key position - query position only, so it is
// never expanded to [heads, queries, keys].
#pragma once

#include <cmath>

#include "lib/autograd/var.h"
#include "lib/base/host_device.h"

namespace stmoe {

struct RelativeBuckets {
  int64_t num_buckets = 32;
  int64_t max_distance = 128;
  bool is_bidirectional = true;
};

// The bucket of relative = key position - query position.
STMOE_HOST_DEVICE int64_t relative_bucket(int64_t relative, const RelativeBuckets& buckets) {
  int64_t first = 0, half = buckets.num_buckets, distance = -relative;
  if (buckets.is_bidirectional) {
    half /= 2;
    if (relative > 0) first = half;
    distance = relative < 0 ? -relative : relative;
  }
  if (distance < 0) distance = 0;
  const int64_t max_exact = half / 2;
  if (distance < max_exact) return first + distance;
  const double exact = static_cast<double>(max_exact);
  const double share = std::log(static_cast<double>(distance) / exact) /
                       std::log(static_cast<double>(buckets.max_distance) / exact);
  // The smallest amount more, so that a distance exactly on a border does not fall below it by
  // rounding.
  const double steps = share * static_cast<double>(half - max_exact) + 1e-9;
  const int64_t bucket = max_exact + static_cast<int64_t>(steps);
  return first + (bucket < half - 1 ? bucket : half - 1);
}

struct RelativeBiasKernels {
  static constexpr const char* kOp = "relative_bias";
  // Column r is for relative position first_relative + r.
  void (*forward)(const Tensor& bias_HR, const Tensor& table_HB, int64_t first_relative,
                  const RelativeBuckets& buckets);
  void (*backward)(const Tensor& dtable_HB, const Tensor& dbias_HR, int64_t first_relative,
                   const RelativeBuckets& buckets);
};

// table_HB [heads, buckets] -> bias_HR [heads, count], entry r for relative position first_relative
// + r; the table's type.
Var relative_bias(const Var& table_HB, int64_t first_relative, int64_t count,
                  const RelativeBuckets& buckets);

}  // namespace stmoe
