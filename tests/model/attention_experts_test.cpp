// SPDX-License-Identifier: Apache-2.0
// moe.attention_experts: Switch layers in self-attention (Fedus et al. 2021, appendix A). What they
// compute is checked against PyTorch in golden_test.cpp (switch_attention).
#include <algorithm>

#include "lib/model/decoder_state.h"
#include "lib/model/flops.h"
#include "lib/model/sizes.h"
#include "tests/model/tiny_batch.h"

namespace stmoe {
namespace {

using namespace test;

// Block 0 of the encoder and both blocks of the decoder; block 1's feed-forward layers are sparse.
MoeConfig with_attention() {
  MoeConfig moe = tiny_experts();
  moe.attention_experts = "linear";
  moe.encoder_attention_layers = {0};
  moe.decoder_attention_layers = {0, 1};
  return moe;
}

}  // namespace

TEST_CASE("attention experts take the place of the query, key and value kernels",
          "[model][attention_experts]") {
  std::vector<std::string> names;
  for (const ParameterShape& parameter : parameter_shapes(tiny_dense(), with_attention())) {
    if (parameter.name.find("block_0/self_attention/") == std::string::npos) continue;
    names.push_back(
        format("{} {} {}", parameter.name, parameter.shape.text(), parameter.stacked_dims));
  }
  std::ranges::sort(names);
  std::vector<std::string> expected;
  for (const char* stack : {"decoder", "encoder"})
    for (const char* rest :
         {"experts/key_value/kernel [3, 12, 10] 1", "experts/query/kernel [3, 12, 10] 1",
          "norm/scale [12] 0", "output/kernel [10, 12] 0", "router/kernel [12, 3] 0"})
      expected.push_back(format("{}/block_0/self_attention/{}", stack, rest));
  CHECK(names == expected);
  // Cross-attention keeps its kernels.
  const auto shapes = parameter_shapes(tiny_dense(), with_attention());
  CHECK(std::ranges::count_if(shapes, [](const ParameterShape& parameter) {
          return parameter.name == "decoder/block_0/cross_attention/query/kernel";
        }) == 1);
}

TEST_CASE("gradients of models with attention experts agree with central differences",
          "[model][attention_experts][gradient]") {
  check_gradients(tiny_dense(), with_attention(), f64_context(false));
  ModelConfig config = tiny_dense();
  config.dropout = 0.2;
  config.recompute = "block";
  config.attention_z_loss = 1;
  check_gradients(config, with_attention(), f64_context(true));
}

TEST_CASE("attention experts are reported and their losses count like those of sparse layers",
          "[model][attention_experts]") {
  ParameterStore store(RandomKey{14}, DType::f64);
  const EncoderDecoder model(tiny_dense(), with_attention(), store);
  const Batch batch = random_batch(2, 6, 4, 19, 15);
  const ModelOutputs outputs = model.forward(batch.inputs, f64_context(false));
  std::vector<std::string> names;
  for (const LayerTally& layer : outputs.routing) names.push_back(layer.name);
  CHECK(names == std::vector<std::string>{"encoder/block_0/self_attention", "encoder/block_1",
                                          "decoder/block_0/self_attention",
                                          "decoder/block_1/self_attention", "decoder/block_1"});
  backward(outputs.load_balance_loss);
  for (const Parameter& parameter : store.parameters())
    if (parameter.name.ends_with("block_0/self_attention/router/kernel")) {
      INFO(parameter.name);
      REQUIRE(parameter.value.grad().defined());
      CHECK(largest_difference(parameter.value.grad(),
                               Tensor::zeros(parameter.value.shape(), DType::f64)) > 0);
    }
}

TEST_CASE("recomputed blocks with attention experts give the same bits",
          "[model][attention_experts][recompute]") {
  std::vector<std::vector<Tensor>> gradients;
  for (const char* recompute : {"none", "block"}) {
    ModelConfig config = tiny_dense();
    config.recompute = recompute;
    config.dropout = 0.3;
    ParameterStore store(RandomKey{1});
    const EncoderDecoder model(config, with_attention(), store);
    const Batch batch = random_batch(3, 9, 6, config.vocabulary_size, 2);
    const ForwardContext context{.is_training = true, .key = RandomKey{3}};
    backward(total_loss(model.forward(batch.inputs, context), batch.targets_BT));
    gradients.emplace_back();
    for (const Parameter& parameter : store.parameters())
      gradients.back().push_back(parameter.value.grad());
  }
  for (size_t i = 0; i < gradients[0].size(); ++i)
    require_same_bits(gradients[1][i], gradients[0][i]);
}

TEST_CASE("attention experts count as experts in sizes and FLOPs, worked by hand",
          "[model][attention_experts][sizes][flops]") {
  // d 12, inner 10, 3 experts; three blocks with attention experts.
  const ModelConfig config = tiny_dense();
  const ModelSizes without = model_sizes(config, tiny_experts());
  const ModelSizes with = model_sizes(config, with_attention());
  CHECK(with.expert == without.expert + 3 * 3 * 2 * 12 * 10);
  CHECK(with.router == without.router + 3 * 12 * 3);
  CHECK(with.dense == without.dense - 3 * 3 * 12 * 10);
  // Two kernels of one expert and the router for three kernels.
  CHECK(with.active_per_token == without.active_per_token + 3 * (2 * 120 + 36 - 3 * 120));
  // 6 input tokens through one block, 3 target tokens through two: two products of 12 x 10 and the
  // router's 12 x 3 for three products of 12 x 10.
  const double encoder = 2 * 6 * (2 * 120 + 36 - 3 * 120),
               decoder = 2 * (2 * 3 * (2 * 120 + 36 - 3 * 120));
  CHECK(forward_flops_per_sequence(config, with_attention(), {6, 3}) ==
        forward_flops_per_sequence(config, tiny_experts(), {6, 3}) + encoder + decoder);
}

TEST_CASE("attention experts and their lists must fit", "[model][attention_experts][config]") {
  using Catch::Matchers::Contains;
  const auto message = [](const std::string& yaml) -> std::string {
    try {
      MoeConfig moe = parse_config<MoeConfig>(yaml, "m.yaml");
      ParameterStore store(RandomKey{}, DType::f32, ParameterStore::Mode::shapes_only);
      EncoderDecoder(tiny_dense(), moe, store);
    } catch (const UsageError& error) {
      return error.what();
    }
    return "no UsageError";
  };
  CHECK(message("{attention_experts: linear, encoder_attention_layers: [0]}") == "no UsageError");
  CHECK_THAT(message("{attention_experts: linear}"),
             Contains("attention_experts: is linear, but no block is listed"));
  CHECK_THAT(message("{decoder_attention_layers: [1]}"),
             Contains("attention_experts: is none, but encoder_attention_layers"));
  CHECK_THAT(message("{attention_experts: linear, encoder_attention_layers: [0, 2]}"),
             Contains("moe.encoder_attention_layers: layer 2 does not exist"));
  CHECK_THAT(message("{attention_experts: mlp}"), Contains("attention_experts"));
  // A router that looks at later tokens is refused in a decoder's attention, too.
  CHECK_THAT(message("{attention_experts: linear, decoder_attention_layers: [0], "
                     "router: {kind: expert_choice}}"),
             Contains("decoder"));
}

}  // namespace stmoe
