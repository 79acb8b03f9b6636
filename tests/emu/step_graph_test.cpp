// SPDX-License-Identifier: Apache-2.0
// Recorded steps on the emulated device: the bytes of steps that run as they are asked for.
#include "lib/tensor/step_graph.h"

#include <optional>
#include <vector>

#include <catch2/catch.hpp>

#include "cuda/runtime/launch.h"
#include "lib/autograd/tape.h"
#include "lib/ops/activation.h"
#include "lib/ops/linear.h"
#include "lib/tensor/arena.h"
#include "tests/support/close.h"

namespace stmoe {
namespace {

using Catch::Contains;

STMOE_KERNEL add_number(float* x, int64_t count, float number) {
  const int64_t i = gpu::block_index() * gpu::block_threads() + gpu::thread_index();
  if (i < count) x[i] += number;
}

void add(const Tensor& x, float number) {
  gpu::launch(add_number, gpu::blocks_for(x.numel(), 32), 32, 0, x.data<float>(), x.numel(),
              number);
}

// One step of a small network: y = relu(x w), w += the gradient of sum(y) times a rate.
Tensor step(const Tensor& host_x, const Tensor& w, float rate) {
  const Var weight = Var::leaf(w);
  const Var y = relu(linear(Var(host_x.on(Device::emu)), weight));
  backward({y}, {Tensor::full(y.shape(), DType::f32, rate, Device::emu)});
  const Tensor changed = w.clone();
  add(changed, rate);
  w.copy_from(changed);
  add(w, static_cast<float>(weight.grad().numel()));
  return y.value().clone_to_heap();
}

std::vector<Tensor> train(StepGraph* graph) {
  StepArena arena(Device::emu);
  const Tensor w = Tensor::full({5, 7}, DType::f32, 0.25).clone_to_heap().on(Device::emu);
  std::vector<Tensor> results;
  for (int i = 0; i < 4; ++i) {
    ArenaStep opened(arena, "train");
    {
      Tensor x = Tensor::full({3, 5}, DType::f32, 0.5 * i - 1);
      std::optional<StepRecording> recording;
      if (graph && i > 0) recording.emplace(*graph);
      results.push_back(step(x, w, 0.5f + static_cast<float>(i)));
      x.fill(-100);  // it was read when the step was recorded
      if (recording) recording->run();
    }
    opened.finish();
  }
  results.push_back(w);
  for (Tensor& result : results) result = result.on(Device::cpu);
  return results;
}

}  // namespace

TEST_CASE("recorded steps give the bytes of steps that run at once", "[emu][graph]") {
  const auto graph = make_step_graph(Device::emu);
  const std::vector<Tensor> recorded = train(graph.get()), direct = train(nullptr);
  REQUIRE(recorded.size() == direct.size());
  for (size_t i = 0; i < direct.size(); ++i) test::require_same_bits(recorded[i], direct[i]);
}

TEST_CASE("nothing of a recorded step runs before the recording is run", "[emu][graph]") {
  const auto graph = make_step_graph(Device::emu);
  const Tensor x = Tensor::zeros({40}, DType::f32, Device::emu);
  {
    StepRecording recording(*graph);
    add(x, 1);
    add(x, 2);
    recording.run();
  }
  CHECK(x.slice(0, 39, 40).item() == 3);
  {
    StepRecording dropped(*graph);
    add(x, 4);
    x.fill(0);
  }
  CHECK(x.slice(0, 39, 40).item() == 3);
}

TEST_CASE("a host read while a step is recorded is an error that says when to read",
          "[emu][graph]") {
  const auto graph = make_step_graph(Device::emu);
  const Tensor x = Tensor::zeros({1}, DType::f32, Device::emu);
  const StepRecording recording(*graph);
  add(x, 1);
  CHECK_THROWS_WITH(x.item(), Contains("while a step is recorded") && Contains("after it ran"));
  CHECK_THROWS_AS(x.on(Device::cpu), HostReadError);
}

TEST_CASE("recordings do not nest, and none is run twice", "[emu][graph]") {
  const auto graph = make_step_graph(Device::emu), other = make_step_graph(Device::emu);
  {
    const StepRecording recording(*graph);
    CHECK_THROWS_WITH(other->begin(), Contains("recorded already"));
  }
  CHECK_THROWS_WITH(graph->run(), Contains("nothing was recorded"));
}

TEST_CASE("memory released in a recorded step is kept until the step has run", "[emu][graph]") {
  const auto graph = make_step_graph(Device::emu);
  const Tensor sum = Tensor::zeros({8}, DType::f32, Device::emu);
  StepRecording recording(*graph);
  for (int i = 0; i < 3; ++i) {
    const Tensor part = Tensor::full({8}, DType::f32, i + 1, Device::emu);
    add(part, 1);
    add(sum, 1);
    sum.copy_from(part);
  }
  recording.run();
  CHECK(sum.slice(0, 0, 1).item() == 4);
}

TEST_CASE("steps of the CPU run at once", "[graph]") {
  const auto graph = make_step_graph(Device::cpu);
  StepRecording recording(*graph);
  const Tensor x = Tensor::full({2}, DType::f32, 3);
  CHECK(x.slice(0, 0, 1).item() == 3);
  recording.run();
}

}  // namespace stmoe
