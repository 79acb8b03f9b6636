// SPDX-License-Identifier: Apache-2.0
// Tiny models for the tests of this room: configs, random tokens, the loss of a batch.
#pragma once

#include <algorithm>
#include <vector>

#include "lib/model/encoder_decoder.h"
#include "lib/ops/cross_entropy.h"
#include "lib/ops/reshape.h"

namespace stmoe::test {

inline ModelConfig tiny_dense() {
  ModelConfig model;
  model.d_model = 12;
  model.d_ff = 20;
  model.d_kv = 5;
  model.num_heads = 2;
  model.encoder_layers = model.decoder_layers = 2;
  model.vocabulary_size = 19;
  return model;
}

inline MoeConfig no_experts() {
  MoeConfig moe;
  moe.encoder_sparse_layers.clear();
  moe.decoder_sparse_layers.clear();
  return moe;
}

// Layer 1 of both stacks is sparse, with room for every token.
inline MoeConfig tiny_experts() {
  MoeConfig moe;
  moe.num_experts = 3;
  moe.encoder_sparse_layers = moe.decoder_sparse_layers = {1};
  moe.train_capacity_factor = moe.eval_capacity_factor = 3.0;
  return moe;
}

// Tokens from 2 up; no padding.
inline Tensor random_tokens(int64_t batch, int64_t length, int64_t vocabulary, uint64_t seed) {
  RandomStream random(RandomKey{seed});
  std::vector<int32_t> tokens(static_cast<size_t>(batch * length));
  for (int32_t& token : tokens)
    token = 2 + static_cast<int32_t>(random.below(static_cast<uint64_t>(vocabulary - 2)));
  return Tensor::from({batch, length}, tokens);
}

inline Tensor shifted_right(const Tensor& targets_BT) {
  Tensor inputs = Tensor::zeros(targets_BT.shape(), DType::i32);
  const int64_t length = targets_BT.dim(1);
  if (length > 1) inputs.slice(1, 1, length).copy_from(targets_BT.slice(1, 0, length - 1));
  return inputs;
}

// The mean cross-entropy over the targets that are not 0.
inline CrossEntropy loss_of(const Var& logits_BTV, const Tensor& targets_BT) {
  const Var logits_NV = reshape(logits_BTV, {-1, logits_BTV.dim(2)});
  return cross_entropy(logits_NV, targets_BT.contiguous().reshape({-1}), {});
}

inline double mean_loss(const CrossEntropy& loss) {
  const CrossEntropySums sums = loss.read();
  return sums.cross_entropy / static_cast<double>(sums.num_targets);
}

inline double largest_difference(const Tensor& a, const Tensor& b) {
  STMOE_CHECK(a.shape() == b.shape(), "{} and {}", a.shape().text(), b.shape().text());
  const Tensor x = a.contiguous().to(DType::f64), y = b.contiguous().to(DType::f64);
  double largest = 0;
  for (size_t i = 0; i < x.span<double>().size(); ++i)
    largest = std::max(largest, std::abs(x.span<double>()[i] - y.span<double>()[i]));
  return largest;
}

}  // namespace stmoe::test
