// SPDX-License-Identifier: Apache-2.0
// A small checkpoint with every element type and shape that occurs, and helpers to read it back.
#pragma once

#include <cstring>

#include "lib/base/error.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/tensor/weight_tensor.h"

namespace stmoe {

inline Tensor ramp_tensor(const Shape& shape, DType dtype, double first) {
  Tensor values = Tensor::empty(shape, DType::f64);
  for (int64_t i = 0; i < values.numel(); ++i)
    values.data<double>()[i] = first + 0.25 * static_cast<double>(i % 97);
  return values.to(dtype);
}

// Values depend on the step, so that checkpoints of different steps are told apart.
inline CheckpointContents example_contents(int64_t step) {
  auto first = static_cast<double>(step);
  CheckpointContents contents;
  contents.step = step;
  contents.weights = {
      {"shared/embedding", ramp_tensor({640, 512}, DType::f32, first)},  // two chunks
      {"encoder/final_norm/scale", ramp_tensor({512}, DType::f32, first)},
      {"decoder/logits/kernel", ramp_tensor({8, 3}, DType::bf16, first)},
      {"encoder/block_1/moe/experts/wi/kernel", ramp_tensor({4, 5, 6}, DType::f64, first)}};
  contents.optimizer = {{"shared/embedding/v_row", ramp_tensor({640}, DType::f32, first)},
                        {"count", ramp_tensor({}, DType::i64, first)},
                        {"nothing", ramp_tensor({0, 3}, DType::i32, first)},
                        {"mask", ramp_tensor({7}, DType::u8, first)}};
  contents.recipe_yaml = "model:\n  d_model: 512\n";
  contents.vocabulary_hash = "0123456789abcdef0123456789abcdef";
  contents.state_json = format("{{\"position\": {}}}", step);
  return contents;
}

inline std::vector<NamedTensor> blank(const std::vector<NamedTensor>& tensors) {
  std::vector<NamedTensor> result;
  for (const NamedTensor& from : tensors)
    result.push_back({from.name, Tensor::zeros(from.tensor.shape(), from.tensor.dtype())});
  return result;
}

inline bool same_bytes(const std::vector<NamedTensor>& a, const std::vector<NamedTensor>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    const Tensor &x = a[i].tensor, &y = b[i].tensor;
    bool is_same = x.shape() == y.shape() && x.dtype() == y.dtype() &&
                   std::memcmp(x.raw(), y.raw(), x.bytes()) == 0;
    if (!is_same) return false;
  }
  return true;
}

// Whether a checkpoint holds exactly example_contents(step); throws what reading throws.
inline bool holds_example(const Path& path, int64_t step) {
  const Checkpoint checkpoint = Checkpoint::open(path);
  const CheckpointContents expected = example_contents(step);
  std::vector<NamedTensor> weights = blank(expected.weights);
  std::vector<NamedTensor> optimizer = blank(expected.optimizer);
  checkpoint.read_weights(weights);
  checkpoint.read_optimizer(optimizer);
  return checkpoint.step() == step && checkpoint.recipe_yaml() == expected.recipe_yaml &&
         checkpoint.state_json() == expected.state_json &&
         checkpoint.vocabulary_hash() == expected.vocabulary_hash &&
         same_bytes(weights, expected.weights) && same_bytes(optimizer, expected.optimizer);
}

// The text of the error; empty when nothing is thrown.
template <class Kind>
std::string text_of(const auto& action) {
  try {
    action();
  } catch (const Kind& error) {
    return error.what();
  }
  return "";
}

}  // namespace stmoe
