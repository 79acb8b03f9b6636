// SPDX-License-Identifier: Apache-2.0
// What holds for a whole layer whatever its router: the gradients of everything, equal bits with
// one thread, two threads and recomputation, and work that grows with the tokens.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "lib/base/profile.h"
#include "lib/base/threads.h"
#include "lib/ops/add.h"
#include "tests/moe/support.h"

namespace stmoe::test {

// d loss / d leaf against central differences, every element.
inline void require_gradients(const std::vector<std::pair<std::string, Var>>& leaves,
                              const std::function<Var()>& loss) {
  for (const auto& [name, leaf] : leaves) leaf.clear_grad();
  backward(loss());
  NoGradScope no_grad;
  constexpr double kStep = 1e-6;
  for (const auto& [name, leaf] : leaves) {
    CAPTURE(name);
    std::vector<double> differences;
    for (double& value : leaf.value().span<double>()) {
      const double before = value;
      value = before + kStep;
      const double up = loss().value().item();
      value = before - kStep;
      const double down = loss().value().item();
      value = before;
      differences.push_back((up - down) / (2 * kStep));
    }
    REQUIRE(leaf.grad().defined());
    require_close(leaf.grad(), differences, {1e-7, 1e-6});
  }
}

// A router alone, with its weights, under the path "router".
struct RouterUnderTest {
  RouterUnderTest(const MoeConfig& config, int64_t d_model, DType dtype)
      : store(RandomKey{1}, dtype),
        router(config.router.factory().make(config.router.box(),
                                            {d_model, config.num_experts, Initializer::normal(0.5)},
                                            ParameterScope(store, "router"))) {}
  const Var& weight(const std::string& name) const {
    for (const Parameter& parameter : store.parameters())
      if (parameter.name == "router/" + name) return parameter.value;
    throw BugError("no weight router/" + name);
  }

  ParameterStore store;
  std::unique_ptr<Router> router;
};

// Moves every weight whose path has `part` away from where it starts: at zero there would be
// nothing but ties.
inline void move_weights(const ParameterStore& store, const std::string& part = "") {
  uint64_t seed = 70;
  for (const Parameter& parameter : store.parameters())
    if (parameter.name.find(part) != std::string::npos)
      parameter.value.value().copy_from(
          random_tensor(parameter.value.shape(), parameter.value.dtype(), ++seed, 0.8));
}

inline ForwardContext training(DType dtype) {
  ForwardContext context;
  context.is_training = true;
  context.compute = dtype;
  context.key = RandomKey{2};
  return context;
}

// Ids of tokens, for routers that look at them.
inline Tensor token_ids(const Shape& shape, int64_t vocabulary) {
  RandomStream stream(RandomKey{41});
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < shape.numel(); ++i)
    ids.push_back(static_cast<int32_t>(stream.below(static_cast<uint64_t>(vocabulary))));
  return Tensor::from<int32_t>(shape, ids);
}

// The gradients of the input and of every weight through output and both losses, in training, with
// padding. Returns the layer's statistics.
inline RoutingStatistics check_layer_gradients(const std::string& yaml) {
  CAPTURE(yaml);
  const LayerUnderTest under_test(moe_config(yaml), expert_shape(5, 4), DType::f64);
  move_weights(under_test.store, "/router/");
  const Tensor mask_BL = Tensor::from<int32_t>({2, 6}, {1, 1, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0});
  const Tensor id_BL = token_ids({2, 6}, 9);
  const Var x = Var::leaf(random_tensor({2, 6, 5}, DType::f64, 7, 2));
  const Var dy(random_tensor({2, 6, 5}, DType::f64, 8));
  RoutingStatistics statistics;
  auto loss = [&] {
    const auto output = under_test.layer.forward(x, mask_BL, training(DType::f64), id_BL);
    statistics = statistics_of(output.tally);
    return weighted_sum(
        {sum(multiply(output.y_BLD, dy)), output.load_balance_loss, output.router_z_loss},
        {1.0, 0.7, 0.3});
  };
  std::vector<std::pair<std::string, Var>> leaves = {{"x", x}};
  for (const Parameter& parameter : under_test.store.parameters())
    leaves.emplace_back(parameter.name, parameter.value);
  require_gradients(leaves, loss);
  return statistics;
}

// Output, then the gradients of the input and of every weight.
inline std::vector<Tensor> layer_step(const LayerUnderTest& under_test, const Tensor& x_value,
                                      bool is_recomputed) {
  for (const Parameter& parameter : under_test.store.parameters()) parameter.value.clear_grad();
  const Var x = Var::leaf(x_value);
  const Tensor id_BL = token_ids({x.dim(0), x.dim(1)}, 50);
  auto block = [&](const std::vector<Var>& xs) {
    const auto output = under_test.layer.forward(xs[0], Tensor(), training(x_value.dtype()), id_BL);
    return std::vector<Var>{output.y_BLD, output.load_balance_loss, output.router_z_loss};
  };
  const auto outputs = is_recomputed ? recompute(block, {x}) : block({x});
  const Tensor one = Tensor::full({1}, DType::f32, 1.0);
  backward(outputs, {random_tensor(x.shape(), x.dtype(), 5), one, one});
  std::vector<Tensor> results = {outputs[0].value(), x.grad()};
  for (const Parameter& parameter : under_test.store.parameters())
    results.push_back(parameter.value.grad().clone());
  return results;
}

inline void check_same_bits(const std::string& yaml) {
  CAPTURE(yaml);
  const LayerUnderTest under_test(moe_config(yaml), expert_shape(24, 20));
  move_weights(under_test.store, "/router/");
  const int threads = num_threads();
  for (DType dtype : {DType::f32, DType::bf16}) {
    const Tensor x = random_tensor({6, 100, 24}, dtype, 1);
    set_num_threads(1);
    const auto expected = layer_step(under_test, x, false);
    set_num_threads(2);
    for (bool is_recomputed : {false, true}) {
      const auto actual = layer_step(under_test, x, is_recomputed);
      REQUIRE(actual.size() == expected.size());
      for (size_t i = 0; i < actual.size(); ++i) require_same_bits(actual[i], expected[i]);
    }
  }
  set_num_threads(threads);
}

// FLOPs and bytes of a training step of `rows` sequences of 50 tokens, as the profile counts them.
inline Work work_of_step(const LayerUnderTest& under_test, int64_t rows) {
  const Tensor x = random_tensor({rows, 50, 24}, DType::f32, 1);
  start_profile();
  layer_step(under_test, x, false);
  Work work;
  for (const OpTime& op : stop_profile().ops) {
    work += op.forward.work;
    work += op.backward.work;
  }
  return work;
}

// Twice the tokens cost twice the arithmetic, and no more than twice the traffic.
inline void check_linear_work(const std::string& yaml) {
  CAPTURE(yaml);
  const LayerUnderTest under_test(moe_config(yaml), expert_shape(24, 20));
  move_weights(under_test.store, "/router/");
  const Work once = work_of_step(under_test, 4), twice = work_of_step(under_test, 8);
  REQUIRE(once.all_flops() > 0);
  REQUIRE(twice.all_flops() == 2 * once.all_flops());
  REQUIRE(twice.bytes <= 2 * once.bytes);
}

// The message of a section `moe` that is refused; empty: it is accepted.
inline std::string refusal(const std::string& yaml) {
  try {
    moe_config(yaml);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

}  // namespace stmoe::test
