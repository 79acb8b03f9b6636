// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/attention.h"

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"
#include "lib/ops/product.h"

namespace stmoe {
namespace {

// Scores and their products with the values, masked pairs included; the backward pass is twice
// that.
double product_flops(const Tensor& query_BQHK, int64_t keys) {
  return 4.0 * static_cast<double>(query_BQHK.numel()) * static_cast<double>(keys);
}

void check_segments(const Tensor& segments, const char* name, const Shape& expected) {
  STMOE_CHECK(segments.dtype() == DType::i32 && segments.shape() == expected,
              "attention: {} segments are {} {}, expected i32 {}", name, name_of(segments.dtype()),
              segments.shape().text(), expected.text());
}

void check_inputs(const AttentionInputs& in) {
  const Tensor &query = in.query_BQHK, &key = in.key_BKHK, &value = in.value_BKHK;
  STMOE_CHECK(query.rank() == 4 && key.rank() == 4 && key.shape() == value.shape() &&
                  query.dim(0) == key.dim(0) && query.dim(2) == key.dim(2) &&
                  query.dim(3) == key.dim(3),
              "attention: query {}, key {} and value {} do not fit", query.shape().text(),
              key.shape().text(), value.shape().text());
  STMOE_CHECK(
      is_floating(query.dtype()) && query.dtype() == key.dtype() && query.dtype() == value.dtype(),
      "attention: query is {}, key {}, value {}", name_of(query.dtype()), name_of(key.dtype()),
      name_of(value.dtype()));
  const AttentionOptions& options = in.options;
  STMOE_CHECK(options.query_segments_BQ.defined() == options.key_segments_BK.defined(),
              "attention: segments of queries and of keys are given both or not at all");
  if (options.query_segments_BQ.defined()) {
    check_segments(options.query_segments_BQ, "query", {query.dim(0), query.dim(1)});
    check_segments(options.key_segments_BK, "key", {query.dim(0), key.dim(1)});
  }
  STMOE_CHECK(0 <= options.dropout.rate && options.dropout.rate < 1,
              "attention: dropout rate {}, expected [0, 1)", options.dropout.rate);
  if (!in.bias_HR.defined() || query.dim(1) == 0 || key.dim(1) == 0) return;
  const DType wanted = query.dtype() == DType::f64 ? DType::f64 : DType::f32;
  STMOE_CHECK(
      in.bias_HR.dtype() == wanted && in.bias_HR.rank() == 2 && in.bias_HR.dim(0) == query.dim(2),
      "attention: bias is {} {}, expected {} [heads, relative positions] for query {}",
      name_of(in.bias_HR.dtype()), in.bias_HR.shape().text(), name_of(wanted),
      query.shape().text());
  const int64_t least = -(query.dim(1) - 1 + options.query_offset);
  int64_t most = key.dim(1) - 1 - options.query_offset;
  if (options.is_causal) most = std::min<int64_t>(0, most);
  const int64_t first = in.first_relative, last = first + in.bias_HR.dim(1) - 1;
  STMOE_CHECK(first <= least && most <= last,
              "attention: bias covers relative positions {} (first, last), the pairs need {}",
              Shape({first, last}).text(), Shape({least, most}).text());
}

// A head's row must be contiguous; heads, rows and sequences may be anywhere.
Tensor with_contiguous_rows(const Tensor& x) {
  return x.dim(3) <= 1 || x.stride(3) == 1 ? x : x.contiguous();
}

Tensor gradient_like(const Tensor& x, bool is_needed) {
  return is_needed ? Tensor::empty(x.shape(), x.dtype(), x.device()) : Tensor();
}

}  // namespace

Var attention(const Var& query_BQHK, const Var& key_BKHK, const Var& value_BKHK, const Var& bias_HR,
              int64_t first_relative, const AttentionOptions& options) {
  OpScope scope(AttentionKernels::kOp, OpScope::Pass::forward);
  AttentionInputs in{query_BQHK.value(), key_BKHK.value(), value_BKHK.value(),
                     bias_HR.value(),    first_relative,   options};
  check_inputs(in);
  for (Tensor* x : {&in.query_BQHK, &in.key_BKHK, &in.value_BKHK}) *x = with_contiguous_rows(*x);
  if (in.bias_HR.defined()) in.bias_HR = in.bias_HR.contiguous();
  if (options.query_segments_BQ.defined()) {
    in.options.query_segments_BQ = options.query_segments_BQ.contiguous();
    in.options.key_segments_BK = options.key_segments_BK.contiguous();
  }
  const Device device = query_BQHK.device();
  const DType statistics_dtype = query_BQHK.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor y = Tensor::empty(query_BQHK.shape(), query_BQHK.dtype(), device);
  const Tensor statistics = Tensor::empty(
      {query_BQHK.dim(0), query_BQHK.dim(2), query_BQHK.dim(1), 2}, statistics_dtype, device);
  kernels<AttentionKernels>(device).forward(y, statistics, in);
  const double flops = product_flops(in.query_BQHK, in.key_BKHK.dim(1));
  count_flops(product_type(query_BQHK.dtype()), flops);
  const bool needs[] = {query_BQHK.requires_grad(), key_BKHK.requires_grad(),
                        value_BKHK.requires_grad(), bias_HR.requires_grad()};
  std::vector<Var> inputs{query_BQHK, key_BKHK, value_BKHK, bias_HR};
  if (!bias_HR.defined()) inputs.pop_back();
  return record(AttentionKernels::kOp, y, inputs,
                [in, y, statistics, device, needs = std::to_array(needs), flops](const Tensor& dy) {
                  const Tensor dquery = gradient_like(in.query_BQHK, needs[0]),
                               dkey = gradient_like(in.key_BKHK, needs[1]),
                               dvalue = gradient_like(in.value_BKHK, needs[2]),
                               dbias = gradient_like(in.bias_HR, needs[3]);
                  kernels<AttentionKernels>(device).backward(
                      dquery, dkey, dvalue, dbias, with_contiguous_rows(dy), y, statistics, in);
                  count_flops(product_type(in.query_BQHK.dtype()), 2 * flops);
                  std::vector<Tensor> gradients{dquery, dkey, dvalue, dbias};
                  if (!in.bias_HR.defined()) gradients.pop_back();
                  return gradients;
                });
}

}  // namespace stmoe
