// SPDX-License-Identifier: Apache-2.0
#include "lib/model/encoder_decoder.h"

#include <catch2/catch.hpp>

#include "lib/base/threads.h"
#include "tests/model/tiny_batch.h"

namespace stmoe {
namespace {

using test::Batch;
using test::check_gradients;
using test::f64_context;
using test::largest_difference;
using test::random_batch;
using test::total_loss;

// T5's two generations, and the second without the gate's product and without scales.
std::vector<ModelConfig> generations() {
  ModelConfig first = test::tiny_dense();
  ModelConfig second = first;
  second.activation = "geglu";
  second.tied_embeddings = false;
  ModelConfig plain = second;
  plain.activation = "gelu";
  plain.norm_scale = false;
  return {first, second, plain};
}

}  // namespace

TEST_CASE("gradients of whole dense models agree with central differences", "[model][gradient]") {
  for (ModelConfig config : generations()) {
    check_gradients(config, test::no_experts(), f64_context(false));
    for (const char* broadcast : {"length", "none"}) {
      config.dropout = 0.2;
      config.dropout_broadcast = broadcast;
      check_gradients(config, test::no_experts(), f64_context(true));
    }
  }
}

TEST_CASE("gradients through the z-loss on attention agree with central differences",
          "[model][z_loss][gradient]") {
  ModelConfig config = test::tiny_dense();
  config.attention_z_loss = 1;
  check_gradients(config, test::no_experts(), f64_context(false));
  config.dropout = 0.2;
  config.recompute = "block";
  check_gradients(config, test::tiny_experts(), f64_context(true));
}

TEST_CASE(
    "the z-loss on attention is a mean over layers, leaves the output alone, and is off by "
    "default",
    "[model][z_loss]") {
  ModelConfig config = test::tiny_dense();
  const Batch batch = random_batch(2, 7, 5, config.vocabulary_size, 21);
  std::vector<ModelOutputs> outputs;
  for (double coefficient : {0.0, 1e-4, 1.0}) {
    config.attention_z_loss = coefficient;
    ParameterStore store(RandomKey{1}, DType::f64);
    const EncoderDecoder model(config, test::no_experts(), store);
    outputs.push_back(model.forward(batch.inputs, f64_context(false)));
  }
  CHECK_FALSE(outputs[0].attention_z_loss.defined());
  for (size_t i : {1, 2})
    test::require_same_bits(outputs[i].logits_BTV.value(), outputs[0].logits_BTV.value());
  // The coefficient is the caller's.
  test::require_same_bits(outputs[1].attention_z_loss.value(), outputs[2].attention_z_loss.value());
}

TEST_CASE("gradients of whole sparse models agree with central differences",
          "[model][moe][gradient]") {
  for (ModelConfig config : generations()) {
    check_gradients(config, test::tiny_experts(), f64_context(false));
    config.dropout = 0.2;
    config.recompute = "block";
    check_gradients(config, test::tiny_experts(), f64_context(true));
  }
}

TEST_CASE("recomputed blocks give the same bits", "[model][recompute]") {
  MoeConfig with_extra = test::tiny_experts();
  with_extra.extra_feed_forward = "after";
  for (const MoeConfig& moe : {test::no_experts(), test::tiny_experts(), with_extra}) {
    std::vector<std::vector<Tensor>> gradients;
    std::vector<Tensor> logits;
    for (const char* recompute : {"none", "block"}) {
      ModelConfig config = test::tiny_dense();
      config.recompute = recompute;
      config.dropout = 0.3;
      config.attention_z_loss = 1;
      ParameterStore store(RandomKey{1});
      const EncoderDecoder model(config, moe, store);
      const Batch batch = random_batch(3, 9, 6, config.vocabulary_size, 2);
      ForwardContext context;
      context.is_training = true;
      context.key = RandomKey{3};
      const ModelOutputs outputs = model.forward(batch.inputs, context);
      logits.push_back(outputs.logits_BTV.value());
      backward(total_loss(outputs, batch.targets_BT));
      gradients.emplace_back();
      for (const Parameter& parameter : store.parameters())
        gradients.back().push_back(parameter.value.grad());
    }
    test::require_same_bits(logits[1], logits[0]);
    for (size_t i = 0; i < gradients[0].size(); ++i)
      test::require_same_bits(gradients[1][i], gradients[0][i]);
  }
}

TEST_CASE("the loss without logits is the loss of the logits, with the same gradients", "[model]") {
  for (ModelConfig config : generations()) {
    std::vector<std::vector<Tensor>> gradients;
    std::vector<CrossEntropy> losses;
    for (bool has_logits : {true, false}) {
      ParameterStore store(RandomKey{1}, DType::f64);
      const EncoderDecoder model(config, test::no_experts(), store);
      Batch batch = random_batch(3, 9, 6, config.vocabulary_size, 2);
      batch.targets_BT = batch.targets_BT.clone();
      batch.targets_BT.data<int32_t>()[4] = 0;
      if (has_logits) {
        const ModelOutputs outputs = model.forward(batch.inputs, f64_context(false));
        losses.push_back(test::loss_of(outputs.logits_BTV, batch.targets_BT));
      } else {
        const ModelOutputs outputs = model.forward_hidden(batch.inputs, f64_context(false));
        CHECK_FALSE(outputs.logits_BTV.defined());
        losses.push_back(model.loss(outputs.decoder_BTD, batch.targets_BT, {}));
      }
      backward(losses.back().total);
      gradients.emplace_back();
      for (const Parameter& parameter : store.parameters())
        gradients.back().push_back(parameter.value.grad());
    }
    test::require_close(losses[1].read().cross_entropy, losses[0].read().cross_entropy, {0, 1e-12});
    CHECK(losses[1].read().num_targets == losses[0].read().num_targets);
    for (size_t i = 0; i < gradients[0].size(); ++i)
      test::require_close(gradients[1][i], gradients[0][i], {1e-10, 1e-10});
  }
}

TEST_CASE("the bits do not depend on the number of threads", "[model][threads]") {
  ModelConfig config = test::tiny_dense();
  config.d_model = 64;
  config.d_ff = 160;
  config.d_kv = 16;
  config.dropout = 0.1;
  const int threads = num_threads();
  for (DType compute : {DType::f32, DType::bf16}) {
    std::vector<std::vector<Tensor>> results;
    for (int count : {1, 3}) {
      set_num_threads(count);
      ParameterStore store(RandomKey{1});
      const EncoderDecoder model(config, test::tiny_experts(), store);
      const Batch batch = random_batch(6, 90, 40, config.vocabulary_size, 2);
      const ForwardContext context{.is_training = true, .compute = compute, .key = RandomKey{3}};
      const ModelOutputs outputs = model.forward(batch.inputs, context);
      results.push_back({outputs.logits_BTV.value()});
      backward(total_loss(outputs, batch.targets_BT));
      for (const Parameter& parameter : store.parameters())
        results.back().push_back(parameter.value.grad());
    }
    set_num_threads(threads);
    for (size_t i = 0; i < results[0].size(); ++i)
      test::require_same_bits(results[1][i], results[0][i]);
  }
}

TEST_CASE("past logits do not depend on later targets", "[model][causal]") {
  for (const MoeConfig& moe : {test::no_experts(), test::tiny_experts()}) {
    const ModelConfig config = test::tiny_dense();
    ParameterStore store(RandomKey{5});
    const EncoderDecoder model(config, moe, store);
    Batch batch = random_batch(2, 8, 6, config.vocabulary_size, 6);
    const Tensor before = model.forward(batch.inputs, {}).logits_BTV.value();
    constexpr int64_t kChanged = 3;
    batch.inputs.decoder_inputs_BT.slice(1, kChanged, 6)
        .copy_from(test::random_tokens(2, 3, config.vocabulary_size, 77));
    const Tensor after = model.forward(batch.inputs, {}).logits_BTV.value();
    CHECK(largest_difference(before.slice(1, 0, kChanged), after.slice(1, 0, kChanged)) == 0);
    CHECK(largest_difference(before.slice(1, kChanged, 6), after.slice(1, kChanged, 6)) > 1e-3);
  }
}

TEST_CASE("examples packed into one row have the loss that they have alone", "[model][packing]") {
  for (const MoeConfig& moe : {test::no_experts(), test::tiny_experts()}) {
    const ModelConfig config = test::tiny_dense();
    ParameterStore store(RandomKey{7}, DType::f64);
    const EncoderDecoder model(config, moe, store);
    const Batch first = random_batch(1, 5, 4, config.vocabulary_size, 8);
    const Batch second = random_batch(1, 3, 2, config.vocabulary_size, 9);
    // One row: both examples, then padding.
    Batch packed;
    auto pack = [](const Tensor& a, const Tensor& b, int64_t length) {
      Tensor row = Tensor::zeros({1, length}, DType::i32);
      row.slice(1, 0, a.dim(1)).copy_from(a);
      row.slice(1, a.dim(1), a.dim(1) + b.dim(1)).copy_from(b);
      return row;
    };
    packed.inputs.encoder_tokens_BL =
        pack(first.inputs.encoder_tokens_BL, second.inputs.encoder_tokens_BL, 10);
    packed.inputs.encoder_segments_BL =
        Tensor::from<int32_t>({1, 10}, {1, 1, 1, 1, 1, 2, 2, 2, 0, 0});
    packed.inputs.decoder_inputs_BT =
        pack(first.inputs.decoder_inputs_BT, second.inputs.decoder_inputs_BT, 8);
    packed.inputs.decoder_segments_BT = Tensor::from<int32_t>({1, 8}, {1, 1, 1, 1, 2, 2, 0, 0});
    packed.targets_BT = pack(first.targets_BT, second.targets_BT, 8);
    auto loss = [&](const Batch& batch) {
      return test::loss_of(model.forward(batch.inputs, f64_context(false)).logits_BTV,
                           batch.targets_BT)
          .read();
    };
    const CrossEntropySums together = loss(packed), one = loss(first), two = loss(second);
    CHECK(together.num_targets == 6);
    test::require_close(together.cross_entropy, one.cross_entropy + two.cross_entropy,
                        {1e-11, 1e-11});
  }
}

TEST_CASE("padding of the input changes nothing", "[model][packing]") {
  const ModelConfig config = test::tiny_dense();
  ParameterStore store(RandomKey{7}, DType::f64);
  const EncoderDecoder model(config, test::no_experts(), store);
  Batch batch = random_batch(2, 5, 4, config.vocabulary_size, 8);
  const Tensor alone = model.forward(batch.inputs, f64_context(false)).logits_BTV.value();
  Tensor padded = Tensor::zeros({2, 9}, DType::i32);
  padded.slice(1, 0, 5).copy_from(batch.inputs.encoder_tokens_BL);
  batch.inputs.encoder_tokens_BL = padded;
  const Tensor with_padding = model.forward(batch.inputs, f64_context(false)).logits_BTV.value();
  CHECK(largest_difference(alone, with_padding) < 1e-12);
}

TEST_CASE("the loss in bf16 is close to that in f32, logits stay f32", "[model][precision]") {
  for (const MoeConfig& moe : {test::no_experts(), test::tiny_experts()}) {
    ModelConfig config = test::tiny_dense();
    config.d_model = 64;
    config.d_ff = 128;
    ParameterStore store(RandomKey{9});
    const EncoderDecoder model(config, moe, store);
    const Batch batch = random_batch(4, 16, 8, config.vocabulary_size, 10);
    ForwardContext context;
    const Var wide = model.forward(batch.inputs, context).logits_BTV;
    context.compute = DType::bf16;
    const ModelOutputs narrow = model.forward(batch.inputs, context);
    CHECK(narrow.logits_BTV.dtype() == DType::f32);
    CHECK(narrow.encoder_BLD.dtype() == DType::bf16);
    const double difference =
        std::abs(test::mean_loss(test::loss_of(wide, batch.targets_BT)) -
                 test::mean_loss(test::loss_of(narrow.logits_BTV, batch.targets_BT)));
    CHECK(difference < 0.03);
    CHECK(difference > 0);
    backward(total_loss(narrow, batch.targets_BT));
    for (const Parameter& parameter : store.parameters()) {
      INFO(parameter.name);
      CHECK(parameter.value.grad().dtype() == DType::f32);
    }
  }
}

TEST_CASE("dropout needs training, differs by key, and repeats with the same key",
          "[model][dropout]") {
  ModelConfig config = test::tiny_dense();
  config.dropout = 0.3;
  ParameterStore store(RandomKey{12});
  const EncoderDecoder model(config, test::no_experts(), store);
  const Batch batch = random_batch(2, 6, 4, config.vocabulary_size, 13);
  auto logits = [&](bool is_training, uint64_t key) {
    ForwardContext context;
    context.is_training = is_training;
    context.key = RandomKey{key};
    return model.forward(batch.inputs, context).logits_BTV.value();
  };
  CHECK(largest_difference(logits(true, 1), logits(true, 1)) == 0);
  CHECK(largest_difference(logits(true, 1), logits(true, 2)) > 1e-3);
  CHECK(largest_difference(logits(false, 1), logits(false, 2)) == 0);
  CHECK(largest_difference(logits(false, 1), logits(true, 1)) > 1e-3);
}

TEST_CASE("a batch can be cut anywhere: masks follow the global row", "[model][dropout]") {
  for (const char* broadcast : {"length", "none"}) {
    ModelConfig config = test::tiny_dense();
    config.dropout = 0.3;
    config.dropout_broadcast = broadcast;
    ParameterStore store(RandomKey{12});
    const EncoderDecoder model(config, test::no_experts(), store);
    const Batch batch = random_batch(4, 6, 5, config.vocabulary_size, 13);
    ForwardContext context;
    context.is_training = true;
    context.key = RandomKey{8};
    const Tensor whole = model.forward(batch.inputs, context).logits_BTV.value();
    ModelInputs half;
    half.encoder_tokens_BL = batch.inputs.encoder_tokens_BL.slice(0, 2, 4);
    half.decoder_inputs_BT = batch.inputs.decoder_inputs_BT.slice(0, 2, 4);
    context.first_row = 2;
    const Tensor part = model.forward(half, context).logits_BTV.value();
    CHECK(largest_difference(whole.slice(0, 2, 4), part) < 1e-5);
  }
}

TEST_CASE("routing is reported layer by layer, encoder first", "[model][moe]") {
  ParameterStore store(RandomKey{14});
  MoeConfig moe = test::tiny_experts();
  moe.encoder_sparse_layers = {0, 1};
  const EncoderDecoder model(test::tiny_dense(), moe, store);
  const ModelOutputs outputs = model.forward(random_batch(2, 6, 4, 19, 15).inputs, {});
  REQUIRE(outputs.routing.size() == 3);
  CHECK(outputs.routing[0].name == "encoder/block_0");
  CHECK(outputs.routing[1].name == "encoder/block_1");
  CHECK(outputs.routing[2].name == "decoder/block_1");
  CHECK(outputs.load_balance_loss.numel() == 1);
  // No layer is sparse: nothing to report.
  ParameterStore dense_store(RandomKey{14});
  const EncoderDecoder dense(test::tiny_dense(), test::no_experts(), dense_store);
  const ModelOutputs plain = dense.forward(random_batch(2, 6, 4, 19, 15).inputs, {});
  CHECK(plain.routing.empty());
  CHECK_FALSE(plain.load_balance_loss.defined());
}

}  // namespace stmoe
