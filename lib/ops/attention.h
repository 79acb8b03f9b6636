// SPDX-License-Identifier: Apache-2.0
// Multi-head attention without the 1/sqrt(d) factor (T5; reference/architecture.md 2):
//   scores[b,h,q,k] = query[b,q,h] . key[b,k,h]
//                     + bias[h, (k - (q + query_offset)) - first_relative]
//   y = dropout(softmax(scores masked)) value
// A pair is masked out when the segment ids differ, when the key's segment id is 0 (padding), or
// when k > q + query_offset in a causal attention. A query with no key left gets y = 0 and passes
// no gradient. Scores and softmax in f32 (f64 for f64). A loss may also look at
//   lse[b,h,q] = log sum_k exp(scores masked)
#pragma once

#include "lib/autograd/var.h"
#include "lib/ops/attention_method.h"
#include "lib/ops/dropout.h"

namespace stmoe {

struct AttentionOptions {
  Tensor query_segments_BQ;  // i32; undefined: one segment, no padding
  Tensor key_segments_BK;    // i32; both or none
  bool is_causal = false;
  int64_t query_offset = 0;  // position of the first query among the keys (decoding with a cache)
  // Of the attention weights. Dropout::broadcast_dim is ignored: is_dropout_shared says whether all
  // queries of a head share one mask over keys (flaxformer, mesh) or each weight has its own
  // (Hugging Face).
  Dropout dropout;
  bool is_dropout_shared = true;
  AttentionMethod method = AttentionMethod::automatic;  // of a GPU
};

// The inputs as tensors, for kernels.
struct AttentionInputs {
  Tensor query_BQHK, key_BKHK, value_BKHK;
  Tensor bias_HR;  // may be undefined
  int64_t first_relative = 0;
  AttentionOptions options;
};

struct AttentionKernels {
  static constexpr const char* kOp = "attention";
  // statistics_BHQ2: what the backward pass needs to compute the weights again.
  void (*forward)(const Tensor& y_BQHK, const Tensor& statistics_BHQ2,
                  const AttentionInputs& inputs);
  // Gradients that are undefined are not wanted; dbias_HR does not depend on the number of threads.
  // dlse_BHQ, of the lse, may be undefined.
  void (*backward)(const Tensor& dquery_BQHK, const Tensor& dkey_BKHK, const Tensor& dvalue_BKHK,
                   const Tensor& dbias_HR, const Tensor& dy_BQHK, const Tensor& dlse_BHQ,
                   const Tensor& y_BQHK, const Tensor& statistics_BHQ2,
                   const AttentionInputs& inputs);
  void (*lse)(const Tensor& lse_BHQ, const Tensor& statistics_BHQ2);
};

// query_BQHK [batch, queries, heads, d_kv], key_BKHK and value_BKHK [batch, keys, heads, d_kv], one
// floating type; bias_HR [heads, R] f32 (f64) or undefined, with first_relative + R covering every
// pair in use. Returns [B, Q, H, d_kv].
Var attention(const Var& query_BQHK, const Var& key_BKHK, const Var& value_BKHK, const Var& bias_HR,
              int64_t first_relative, const AttentionOptions& options);

struct AttentionWithLse {
  Var y_BQHK;
  Var lse_BHQ;  // f32 (f64); minus infinity for a query with no key left
};

// The same with the lse, which costs a logarithm per query and head.
AttentionWithLse attention_with_lse(const Var& query_BQHK, const Var& key_BKHK,
                                    const Var& value_BKHK, const Var& bias_HR,
                                    int64_t first_relative, const AttentionOptions& options);

}  // namespace stmoe
