// SPDX-License-Identifier: Apache-2.0
// T5's learned relative position bias as one value per head and relative position
// (reference/architecture.md 2). The bias depends on key position - query position only, so it is
// never expanded to [heads, queries, keys].
#pragma once

#include "lib/autograd/var.h"

namespace stmoe {

struct RelativeBiasKernels {
  static constexpr const char* kOp = "relative_bias";
  // bucket_R i32: the bucket of each relative position.
  void (*forward)(const Tensor& bias_HR, const Tensor& table_HB, const Tensor& bucket_R);
  void (*backward)(const Tensor& dtable_HB, const Tensor& dbias_HR, const Tensor& bucket_R);
};

struct RelativeBuckets {
  int64_t num_buckets = 32;
  int64_t max_distance = 128;
  bool is_bidirectional = true;
};

// The bucket of relative = key position - query position.
int64_t relative_bucket(int64_t relative, const RelativeBuckets& buckets);

// table_HB [heads, buckets] -> bias_HR [heads, count], entry r for relative position first_relative
// + r; the table's type.
Var relative_bias(const Var& table_HB, int64_t first_relative, int64_t count,
                  const RelativeBuckets& buckets);

}  // namespace stmoe
