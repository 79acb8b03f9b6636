// SPDX-License-Identifier: Apache-2.0
// Activation checkpointing over real ops: the same bits as without, dropout and weights included.
#include <catch2/catch.hpp>

#include "lib/autograd/tape.h"
#include "lib/base/random.h"
#include "lib/ops/activation.h"
#include "lib/ops/add.h"
#include "lib/ops/cross_entropy.h"
#include "lib/ops/dropout.h"
#include "lib/ops/embedding.h"
#include "lib/ops/linear.h"
#include "lib/ops/rms_norm.h"
#include "lib/tensor/arena.h"
#include "tests/support/close.h"

namespace stmoe {
namespace {

constexpr int64_t kTokens = 12, kWidth = 16, kVocabulary = 24, kBlocks = 3;

Var weight(const Shape& shape, uint64_t seed) {
  const Tensor value = Tensor::persistent(shape, DType::f32);
  for (int64_t i = 0; i < value.numel(); ++i)
    value.data<float>()[i] =
        0.3f * static_cast<float>(random_normal(RandomKey{seed}, static_cast<uint64_t>(i)));
  return Var::leaf(value);
}

struct SmallModel {
  Var table = weight({kVocabulary, kWidth}, 1), scale = weight({kWidth}, 2);
  Var in = weight({kWidth, 2 * kWidth}, 3), gate = weight({kWidth, 2 * kWidth}, 4);
  Var out = weight({2 * kWidth, kWidth}, 5);
  Tensor ids = Tensor::persistent({kTokens}, DType::i32);

  SmallModel() {
    for (int64_t n = 0; n < kTokens; ++n)
      ids.data<int32_t>()[n] = static_cast<int32_t>(1 + 7 * n % (kVocabulary - 1));
  }

  Var block(const Var& x, uint64_t index) const {
    const Dropout drop{0.4, RandomKey{9}.fold(index)};
    const Var normal = rms_norm(x, scale);
    const Var hidden = dropout(geglu(linear(normal, gate), linear(normal, in)), drop);
    return add(x, dropout(linear(hidden, out), {0.2, drop.key.fold("residual"), 0, 5}));
  }

  // The loss, and the gradients of all weights.
  std::vector<Tensor> run(DType dtype, bool is_recomputed) const {
    Var x = embedding(table, ids, dtype);
    for (uint64_t i = 0; i < kBlocks; ++i) {
      auto run_block = [=, this](const std::vector<Var>& inputs) {
        return std::vector<Var>{block(inputs[0], i)};
      };
      x = is_recomputed ? recompute(run_block, {x})[0] : block(x, i);
    }
    const Var logits = linear_transposed(x, table, DType::f32);
    const Var loss = cross_entropy(logits, ids, {.z_loss = 1e-3}).total;
    backward(loss);
    std::vector<Tensor> results{loss.value().clone_to_heap()};
    for (const Var& leaf : {table, scale, in, gate, out}) {
      results.push_back(leaf.grad().clone_to_heap());
      leaf.clear_grad();
    }
    return results;
  }
};

}  // namespace

TEST_CASE("recomputed blocks give the bits of plain ones, dropout included", "[ops][recompute]") {
  const SmallModel model;
  for (DType dtype : {DType::f32, DType::bf16}) {
    INFO(name_of(dtype));
    const auto plain = model.run(dtype, false), again = model.run(dtype, true);
    for (size_t i = 0; i < plain.size(); ++i) {
      INFO("result " << i);
      test::require_same_bits(again[i], plain[i]);
    }
  }
}

TEST_CASE("a step in a planned arena gives the bits of one on the heap", "[ops][arena]") {
  const SmallModel model;
  for (bool is_recomputed : {false, true}) {
    const auto expected = model.run(DType::bf16, is_recomputed);
    StepArena arena;
    for (int step = 0; step < 3; ++step) {
      INFO("step " << step << ", recomputed " << is_recomputed);
      ArenaStep scope(arena, "train");
      const auto results = model.run(DType::bf16, is_recomputed);
      scope.finish();
      for (size_t i = 0; i < expected.size(); ++i) test::require_same_bits(results[i], expected[i]);
    }
  }
}

}  // namespace stmoe
