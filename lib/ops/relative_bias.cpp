// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/relative_bias.h"

#include <cmath>

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"

namespace stmoe {
namespace {

void forward_cpu(const Tensor& bias_HR, const Tensor& table_HB, const Tensor& bucket_R) {
  visit_floating(table_HB.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const int64_t heads = bias_HR.dim(0), count = bias_HR.dim(1), buckets = table_HB.dim(1);
    T* bias = bias_HR.data<T>();
    const T* table = table_HB.data<T>();
    const int32_t* bucket = bucket_R.data<int32_t>();
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t r = 0; r < count; ++r) bias[h * count + r] = table[h * buckets + bucket[r]];
  });
}

void backward_cpu(const Tensor& dtable_HB, const Tensor& dbias_HR, const Tensor& bucket_R) {
  visit_floating(dtable_HB.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const int64_t heads = dbias_HR.dim(0), count = dbias_HR.dim(1), buckets = dtable_HB.dim(1);
    T* dtable = dtable_HB.data<T>();
    const T* dbias = dbias_HR.data<T>();
    const int32_t* bucket = bucket_R.data<int32_t>();
    std::vector<double> row(static_cast<size_t>(buckets));
    for (int64_t h = 0; h < heads; ++h) {
      std::fill(row.begin(), row.end(), 0.0);
      for (int64_t r = 0; r < count; ++r)
        row[static_cast<size_t>(bucket[r])] += static_cast<Compute<T>>(dbias[h * count + r]);
      for (int64_t b = 0; b < buckets; ++b)
        dtable[h * buckets + b] =
            static_cast<T>(static_cast<Compute<T>>(row[static_cast<size_t>(b)]));
    }
  });
}

STMOE_REGISTER_KERNELS(RelativeBiasKernels, cpu, {forward_cpu, backward_cpu})

}  // namespace

int64_t relative_bucket(int64_t relative, const RelativeBuckets& buckets) {
  int64_t first = 0, half = buckets.num_buckets, distance = -relative;
  if (buckets.is_bidirectional) {
    half /= 2;
    if (relative > 0) first = half;
    distance = std::abs(relative);
  }
  distance = std::max<int64_t>(distance, 0);
  const int64_t max_exact = half / 2;
  if (distance < max_exact) return first + distance;
  const double exact = static_cast<double>(max_exact);
  const double share = std::log(static_cast<double>(distance) / exact) /
                       std::log(static_cast<double>(buckets.max_distance) / exact);
  // The smallest amount more, so that a distance exactly on a border does not fall below it by
  // rounding.
  const double steps = share * static_cast<double>(half - max_exact) + 1e-9;
  return first + std::min(half - 1, max_exact + static_cast<int64_t>(steps));
}

Var relative_bias(const Var& table_HB, int64_t first_relative, int64_t count,
                  const RelativeBuckets& buckets) {
  OpScope scope("relative_bias", OpScope::Pass::forward);
  STMOE_CHECK(buckets.num_buckets >= 4 && buckets.max_distance > buckets.num_buckets / 2,
              "relative_bias: {} buckets up to distance {}", buckets.num_buckets,
              buckets.max_distance);
  STMOE_CHECK(table_HB.rank() == 2 && table_HB.dim(1) == buckets.num_buckets && count >= 0 &&
                  is_floating(table_HB.dtype()),
              "relative_bias: table is {} {}, expected [heads, {}]; {} positions",
              name_of(table_HB.dtype()), table_HB.shape().text(), buckets.num_buckets, count);
  const Tensor table = table_HB.value().contiguous();
  const Tensor bucket = Tensor::empty({count}, DType::i32);
  for (int64_t r = 0; r < count; ++r)
    bucket.data<int32_t>()[r] = static_cast<int32_t>(relative_bucket(first_relative + r, buckets));
  const Tensor bias = Tensor::empty({table.dim(0), count}, table.dtype(), table.device());
  kernels<RelativeBiasKernels>(bias.device()).forward(bias, table, bucket);
  return record("relative_bias", bias, {table_HB},
                [bucket, like = table](const Tensor& dbias) -> std::vector<Tensor> {
                  const Tensor dtable = Tensor::empty_like(like);
                  kernels<RelativeBiasKernels>(dbias.device()).backward(dtable, dbias, bucket);
                  return {dtable};
                });
}

}  // namespace stmoe
