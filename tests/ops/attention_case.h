// SPDX-License-Identifier: Apache-2.0
// A case of attention: its options, its reference in f64 (whose dropout masks come from the same
// counters), and the OpCases that follow from it.
#pragma once

#include <cmath>
#include <limits>

#include "lib/ops/attention.h"
#include "lib/ops/attention_z_loss.h"
#include "tests/support/op_case.h"

namespace stmoe::test {

struct AttentionCase {
  int64_t batch = 2, queries = 5, keys = 5, heads = 2, width = 4;
  bool has_bias = true;
  std::vector<int32_t> query_segments = {}, key_segments = {};  // of every sequence, row by row
  bool is_causal = false;
  int64_t query_offset = 0;
  double dropout = 0;
  bool is_dropout_shared = true;
  int64_t first_row = 0;
  AttentionMethod method = AttentionMethod::automatic;

  int64_t first_relative() const { return -(queries - 1 + query_offset) - 1; }  // one to spare
  int64_t num_relative() const { return queries + keys + 1; }
  std::string name() const {
    return format(
        "attention b{} q{} k{} h{} d{} bias {} segments {} causal {} offset {} dropout {} {} {}",
        batch, queries, keys, heads, width, has_bias, query_segments.size(), is_causal,
        query_offset, dropout, is_dropout_shared, name_of(method));
  }
  AttentionOptions options(Device device = Device::cpu) const {
    AttentionOptions options;
    if (!query_segments.empty()) {
      options.query_segments_BQ = Tensor::from({batch, queries}, query_segments).on(device);
      options.key_segments_BK = Tensor::from({batch, keys}, key_segments).on(device);
    }
    options.is_causal = is_causal;
    options.query_offset = query_offset;
    options.dropout = {dropout, RandomKey{11}, -1, first_row};
    options.is_dropout_shared = is_dropout_shared;
    options.method = method;
    return options;
  }
  bool is_visible(int64_t b, int64_t q, int64_t k) const {
    if (is_causal && k > q + query_offset) return false;
    if (query_segments.empty()) return true;
    const int32_t id = key_segments[static_cast<size_t>(b * keys + k)];
    return id != 0 && id == query_segments[static_cast<size_t>(b * queries + q)];
  }
  // What dropout makes of a weight of one.
  double kept(int64_t b, int64_t h, int64_t q, int64_t k) const {
    if (dropout == 0) return 1;
    const int64_t head = (first_row + b) * heads + h;
    const int64_t index = is_dropout_shared ? head * keys + k : (head * queries + q) * keys + k;
    const double u = random_uniform(RandomKey{11}, static_cast<uint64_t>(index));
    return u < dropout ? 0 : 1 / (1 - dropout);
  }
};

// y, and the mean over the queries that see a key of the square of their lse.
inline OpValues attention_reference(const AttentionCase& c, const OpValues& x) {
  const auto at = [&](const std::vector<double>& v, int64_t length, int64_t b, int64_t i, int64_t h,
                      int64_t d) {
    return v[static_cast<size_t>(((b * length + i) * c.heads + h) * c.width + d)];
  };
  std::vector<double> y(x[0].size(), 0.0), weights(static_cast<size_t>(c.keys));
  double squares = 0, pairs = 0;
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t h = 0; h < c.heads; ++h)
      for (int64_t q = 0; q < c.queries; ++q) {
        double most = -std::numeric_limits<double>::infinity(), total = 0;
        for (int64_t k = 0; k < c.keys; ++k) {
          double score = 0;
          for (int64_t d = 0; d < c.width; ++d)
            score += at(x[0], c.queries, b, q, h, d) * at(x[1], c.keys, b, k, h, d);
          if (c.has_bias)
            score += x[3][static_cast<size_t>(h * c.num_relative() + k - (q + c.query_offset) -
                                              c.first_relative())];
          weights[static_cast<size_t>(k)] = c.is_visible(b, q, k) ? score : -INFINITY;
          most = std::max(most, weights[static_cast<size_t>(k)]);
        }
        if (std::isinf(most)) continue;
        for (double& weight : weights) total += weight = std::exp(weight - most);
        squares += (most + std::log(total)) * (most + std::log(total));
        pairs += 1;
        for (int64_t k = 0; k < c.keys; ++k)
          for (int64_t d = 0; d < c.width; ++d)
            y[static_cast<size_t>(((b * c.queries + q) * c.heads + h) * c.width + d)] +=
                weights[static_cast<size_t>(k)] / total * c.kept(b, h, q, k) *
                at(x[2], c.keys, b, k, h, d);
      }
  return {y, {pairs > 0 ? squares / pairs : 0.0}};
}

inline OpCase attention_case(const AttentionCase& c) {
  OpCase op_case;
  op_case.name = c.name();
  op_case.inputs = {{.shape = {c.batch, c.queries, c.heads, c.width}},
                    {.shape = {c.batch, c.keys, c.heads, c.width}},
                    {.shape = {c.batch, c.keys, c.heads, c.width}}};
  if (c.has_bias)
    op_case.inputs.push_back(
        {.shape = {c.heads, c.num_relative()}, .low = -2, .high = 2, .is_weight = true});
  op_case.call = [c](const OpArguments& x) {
    return attention(x[0], x[1], x[2], c.has_bias ? x[3] : Var(), c.first_relative(),
                     c.options(x.device));
  };
  op_case.reference = [c](const OpValues& x) { return OpValues{attention_reference(c, x)[0]}; };
  // bf16 weights and score gradients are rounded to 8 bits before the second products; the bias
  // gradient sums them.
  op_case.tolerance.bf16 = {2e-2, 2e-2};
  op_case.gradient_tolerance.f32 = {2e-5, 1e-4};
  op_case.gradient_tolerance.bf16 = {6e-2, 3e-2};
  return op_case;
}

// The z-loss beside the result; both pass gradients.
inline OpCase z_loss_case(const AttentionCase& c) {
  OpCase op_case = attention_case(c);
  op_case.name += " with z-loss";
  op_case.call = [c](const OpArguments& x) {
    const auto [y, lse] = attention_with_lse(x[0], x[1], x[2], c.has_bias ? x[3] : Var(),
                                             c.first_relative(), c.options(x.device));
    return OpResults({y, attention_z_loss(lse)});
  };
  op_case.reference = [c](const OpValues& x) { return attention_reference(c, x); };
  return op_case;
}

// Sequence b: segments of lengths 3, 4, ... and then padding of b positions.
inline std::vector<int32_t> packed_segments(int64_t batch, int64_t length) {
  std::vector<int32_t> ids;
  for (int64_t b = 0; b < batch; ++b) {
    int32_t id = 1;
    int64_t left = 3;
    for (int64_t i = 0; i < length; ++i) {
      if (left-- == 0) {
        left = 2 + ++id;
      }
      ids.push_back(i >= length - b ? 0 : id);
    }
  }
  return ids;
}

}  // namespace stmoe::test
