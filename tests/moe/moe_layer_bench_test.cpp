// SPDX-License-Identifier: Apache-2.0
// Time of a training step of one layer by op: test_moe "[.bench]". 4096 tokens, d_model 512, d_ff
// 2048, top-1, capacity factor 1.25; in a step arena, the first steps not counted.
#include <cstdio>

#include <catch2/catch.hpp>

#include "lib/base/profile.h"
#include "lib/base/threads.h"
#include "lib/tensor/arena.h"
#include "tests/moe/support.h"

namespace stmoe::test {
namespace {

void time_layer(int64_t num_experts, double jitter, DType dtype) {
  constexpr int kWarmUp = 3, kSteps = 10;
  const LayerUnderTest under_test(
      moe_config(format("{{num_experts: {}, router: {{kind: top_k, k: 1, jitter: {}}}}}",
                        num_experts, jitter)),
      expert_shape(512, 2048));
  const Tensor x_value = random_tensor({8, 512, 512}, dtype, 1).clone_to_heap();
  const Tensor dy = random_tensor(x_value.shape(), dtype, 2).clone_to_heap();
  ForwardContext context;
  context.is_training = true;
  context.compute = dtype;
  StepArena arena;
  for (int i = 0; i < kWarmUp + kSteps; ++i) {
    if (i == kWarmUp) start_profile();
    ArenaStep step(arena, "train");
    {
      const Var x = Var::leaf(x_value);
      const auto output = under_test.layer.forward(x, Tensor(), context);
      const Tensor one = Tensor::full({1}, DType::f32, 1.0);
      backward({output.y_BLD, output.load_balance_loss, output.router_z_loss}, {dy, one, one});
      for (const Parameter& parameter : under_test.store.parameters()) parameter.value.clear_grad();
    }
    step.finish();
  }
  const Profile profile = stop_profile();
  std::printf("%lld experts, %s, jitter %g, %d threads: ms per step\n",
              static_cast<long long>(num_experts), std::string(name_of(dtype)).c_str(), jitter,
              num_threads());
  double total = 0;
  for (const OpTime& time : profile.ops) {
    std::printf("  %-20s forward %8.3f  backward %8.3f\n", time.op.c_str(),
                1e3 * time.forward.seconds / kSteps, 1e3 * time.backward.seconds / kSteps);
    total += 1e3 * (time.forward.seconds + time.backward.seconds) / kSteps;
  }
  std::printf("  %-20s %.3f\n", "all", total);
}

TEST_CASE("time of a layer by op", "[.bench]") {
  for (DType dtype : {DType::f32, DType::bf16})
    for (int64_t num_experts : {8, 64}) time_layer(num_experts, 0, dtype);
  time_layer(8, 0.01, DType::bf16);
}

}  // namespace
}  // namespace stmoe::test
