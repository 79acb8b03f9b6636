// SPDX-License-Identifier: Apache-2.0
// A random batch for a tiny model, its loss, and the check of a whole model's gradients in f64.
#pragma once

#include <catch2/catch.hpp>

#include "lib/autograd/tape.h"
#include "lib/ops/add.h"
#include "tests/model/tiny_model.h"
#include "tests/support/close.h"

namespace stmoe::test {

struct Batch {
  ModelInputs inputs;
  Tensor targets_BT;
};

inline Batch random_batch(int64_t batch, int64_t input_length, int64_t target_length,
                          int64_t vocabulary, uint64_t seed) {
  Batch result;
  result.inputs.encoder_tokens_BL = random_tokens(batch, input_length, vocabulary, seed);
  result.targets_BT = random_tokens(batch, target_length, vocabulary, seed + 1);
  result.inputs.decoder_inputs_BT = shifted_right(result.targets_BT);
  return result;
}

// Cross-entropy per target, plus the layers' losses with weights that make them matter.
inline Var total_loss(const ModelOutputs& outputs, const Tensor& targets_BT) {
  const CrossEntropy loss = loss_of(outputs.logits_BTV, targets_BT);
  std::vector<Var> terms = {loss.total};
  std::vector<double> coefficients = {1.0 / static_cast<double>(loss.read().num_targets)};
  if (outputs.load_balance_loss.defined()) {
    terms.insert(terms.end(), {outputs.load_balance_loss, outputs.router_z_loss});
    coefficients.insert(coefficients.end(), {0.1, 0.01});
  }
  if (outputs.attention_z_loss.defined()) {
    terms.push_back(outputs.attention_z_loss);
    coefficients.push_back(0.05);
  }
  return weighted_sum(terms, coefficients);
}

// d loss / d direction by the tape and by central differences, for one random direction per
// parameter.
inline void check_gradients(const ModelConfig& config, const MoeConfig& moe,
                            const ForwardContext& context) {
  ParameterStore store(RandomKey{11}, DType::f64);
  const EncoderDecoder model(config, moe, store);
  const Batch batch = random_batch(2, 7, 5, config.vocabulary_size, 21);
  auto loss = [&] { return total_loss(model.forward(batch.inputs, context), batch.targets_BT); };
  backward(loss());
  for (const Parameter& parameter : store.parameters()) {
    INFO(parameter.name);
    REQUIRE(parameter.value.grad().defined());
    const Tensor& values = parameter.value.value();
    const Tensor start = values.clone();
    Tensor direction = Tensor::empty(values.shape(), DType::f64);
    initialize(direction, Initializer::normal(1.0), RandomKey{31}.fold(parameter.name));
    const Tensor gradient = parameter.value.grad().contiguous();
    double slope = 0;
    for (size_t i = 0; i < direction.span<double>().size(); ++i)
      slope += gradient.span<double>()[i] * direction.span<double>()[i];
    constexpr double kStep = 1e-5;
    auto loss_at = [&](double distance) {
      NoGradScope no_grad;
      for (size_t i = 0; i < direction.span<double>().size(); ++i)
        values.span<double>()[i] = start.span<double>()[i] + distance * direction.span<double>()[i];
      return loss().value().item();
    };
    const double difference = (loss_at(kStep) - loss_at(-kStep)) / (2 * kStep);
    values.copy_from(start);
    require_close(slope, difference, {1e-7, 1e-6});
  }
}

inline ForwardContext f64_context(bool is_training) {
  ForwardContext context;
  context.compute = DType::f64;
  context.is_training = is_training;
  context.key = RandomKey{41};
  return context;
}

}  // namespace stmoe::test
