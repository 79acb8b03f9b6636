// SPDX-License-Identifier: Apache-2.0
#include "lib/eval/greedy.h"

#include <algorithm>

#include "lib/data/vocabulary.h"
#include "lib/model/decoder_state.h"

namespace stmoe {
namespace {

template <class T>
int32_t most_probable(std::span<const T> scores) {
  return static_cast<int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

int32_t most_probable(const Tensor& scores) {
  return scores.dtype() == DType::f64 ? most_probable<double>(scores.span<double>())
                                      : most_probable<float>(scores.span<float>());
}

}  // namespace

std::vector<std::vector<int32_t>> decode_greedily(const EncoderDecoder& model,
                                                  const Tensor& tokens_BL, int64_t max_length,
                                                  DType compute) {
  const int64_t batch = tokens_BL.dim(0);
  std::vector<std::vector<int32_t>> texts(static_cast<size_t>(batch));
  std::vector<bool> has_ended(static_cast<size_t>(batch), false);
  DecoderState state(model, tokens_BL.on(model.device()), max_length, compute);
  const Tensor inputs_B = Tensor::zeros({batch}, DType::i32);  // the start token is 0
  while (state.position() < max_length && std::ranges::find(has_ended, false) != has_ended.end()) {
    const Tensor logits_BV = state.step(inputs_B.on(model.device())).on(Device::cpu);
    for (int64_t b = 0; b < batch; ++b) {
      const size_t row = static_cast<size_t>(b);
      const int32_t token = most_probable(logits_BV.slice(0, b, b + 1));
      if (token == kEosId) has_ended[row] = true;
      if (!has_ended[row]) texts[row].push_back(token);
      inputs_B.span<int32_t>()[row] = has_ended[row] ? kPadId : token;
    }
  }
  return texts;
}

}  // namespace stmoe
