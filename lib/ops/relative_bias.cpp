// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/relative_bias.h"

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"

namespace stmoe {
namespace {

std::vector<size_t> buckets_of(int64_t first_relative, int64_t count,
                               const RelativeBuckets& buckets) {
  std::vector<size_t> result;
  for (int64_t r = 0; r < count; ++r)
    result.push_back(static_cast<size_t>(relative_bucket(first_relative + r, buckets)));
  return result;
}

void forward_cpu(const Tensor& bias_HR, const Tensor& table_HB, int64_t first_relative,
                 const RelativeBuckets& buckets) {
  const auto bucket = buckets_of(first_relative, bias_HR.dim(1), buckets);
  visit_floating(table_HB.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const int64_t heads = bias_HR.dim(0), count = bias_HR.dim(1);
    T* bias = bias_HR.data<T>();
    const T* table = table_HB.data<T>();
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t r = 0; r < count; ++r)
        bias[h * count + r] =
            table[h * buckets.num_buckets + static_cast<int64_t>(bucket[static_cast<size_t>(r)])];
  });
}

void backward_cpu(const Tensor& dtable_HB, const Tensor& dbias_HR, int64_t first_relative,
                  const RelativeBuckets& buckets) {
  const auto bucket = buckets_of(first_relative, dbias_HR.dim(1), buckets);
  visit_floating(dtable_HB.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const int64_t heads = dbias_HR.dim(0), count = dbias_HR.dim(1);
    T* dtable = dtable_HB.data<T>();
    const T* dbias = dbias_HR.data<T>();
    std::vector<double> row(static_cast<size_t>(buckets.num_buckets));
    for (int64_t h = 0; h < heads; ++h) {
      std::fill(row.begin(), row.end(), 0.0);
      for (int64_t r = 0; r < count; ++r)
        row[bucket[static_cast<size_t>(r)]] += static_cast<Compute<T>>(dbias[h * count + r]);
      for (int64_t b = 0; b < buckets.num_buckets; ++b)
        dtable[h * buckets.num_buckets + b] =
            static_cast<T>(static_cast<Compute<T>>(row[static_cast<size_t>(b)]));
    }
  });
}

STMOE_REGISTER_KERNELS(RelativeBiasKernels, cpu, {forward_cpu, backward_cpu})

}  // namespace

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
  const Tensor bias = Tensor::empty({table.dim(0), count}, table.dtype(), table.device());
  kernels<RelativeBiasKernels>(bias.device()).forward(bias, table, first_relative, buckets);
  return record("relative_bias", bias, {table_HB},
                [=, like = table](const Tensor& dbias) -> std::vector<Tensor> {
                  const Tensor dtable = Tensor::empty_like(like);
                  kernels<RelativeBiasKernels>(dbias.device())
                      .backward(dtable, dbias, first_relative, buckets);
                  return {dtable};
                });
}

}  // namespace stmoe
