// SPDX-License-Identifier: Apache-2.0
// Optimizers on the emulated device against the CPU's: weights, their bf16 copies and all state
// after several updates, and the same bits twice.
#include <catch2/catch.hpp>

#include "lib/optim/gradients.h"
#include "tests/optim/formula.h"
#include "tests/support/close.h"

namespace stmoe::test {
namespace {

struct Weight {
  Shape shape;
  int stacked_dims = 0;
};

// Odd sizes, tall and wide ones, tiles of more rows than are summed together and rows of more than
// one tile; stacks whose experts are the batch, the row of a factored matrix, and no matrix at all;
// vectors of more than one piece. Matrices are factored from 8 on.
const std::vector<Weight>& weights() {
  static const std::vector<Weight> kWeights = {{{67, 33}},
                                               {{9, 1061}},
                                               {{10, 1044}},
                                               {{17001, 8}},
                                               {{3, 30, 20}, 1},
                                               {{5, 9, 7}, 1},
                                               {{40, 3, 12}, 1},
                                               {{31, 29, 6}, 1},
                                               {{8300}},
                                               {{768}},
                                               {{6, 20}},
                                               {{4, 36}, 1},
                                               {{1}},
                                               {{2, 4, 2100}, 1}};
  return kWeights;
}

struct Run {
  ParameterList parameters;
  std::unique_ptr<Optimizer> optimizer;
};

Run run(const std::string& section, Device device, int64_t steps) {
  Run result;
  for (const Weight& weight : weights()) {
    const int number = static_cast<int>(result.parameters.size());
    const Var value = Var::leaf(formula_weight(weight.shape, number).on(device));
    result.parameters.push_back({format("w{}", number), value, weight.stacked_dims});
    if (number % 2 == 0) value.keep_rounded();
  }
  result.optimizer = optimizer_of(section, result.parameters);
  for (int64_t step = 0; step < steps; ++step) {
    for (size_t p = 0; p < result.parameters.size(); ++p) {
      const Var& value = result.parameters[p].value;
      value.value_as(DType::bf16);
      // Every expert's gradient has another size: what is meant for one must not reach another.
      Tensor gradient = formula_gradient(weights()[p].shape, static_cast<int>(p), step);
      const int64_t slices = weights()[p].stacked_dims > 0 ? gradient.dim(0) : 1;
      const int64_t size = gradient.numel() / slices;
      for (int64_t i = 0; i < gradient.numel(); ++i)
        gradient.data<float>()[i] *= static_cast<float>(1 + i / size % 5);
      value.set_grad(gradient.on(device));
    }
    result.optimizer->update(result.parameters, 0.01, step);
  }
  return result;
}

void require_same(const Run& actual, const Run& expected, Tolerance tolerance) {
  for (size_t p = 0; p < expected.parameters.size(); ++p) {
    const Var &there = actual.parameters[p].value, &here = expected.parameters[p].value;
    INFO("weight " << here.shape().text());
    require_close(there.value().on(Device::cpu), values_of(here.value().on(Device::cpu)),
                  tolerance);
    REQUIRE(there.rounded().defined() == here.rounded().defined());
    if (there.rounded().defined())
      require_same_bits(there.rounded().on(Device::cpu),
                        there.value().on(Device::cpu).to(DType::bf16));
  }
  const auto states = actual.optimizer->state(), expected_states = expected.optimizer->state();
  REQUIRE(states.size() == expected_states.size());
  for (size_t i = 0; i < states.size(); ++i) {
    INFO(states[i].name);
    require_close(states[i].tensor.on(Device::cpu),
                  values_of(expected_states[i].tensor.on(Device::cpu)),
                  {tolerance.absolute * 0.1, tolerance.relative * 5});
  }
}

}  // namespace

TEST_CASE("optimizers on a device agree with the CPU's", "[optim][gpu]") {
  for (const char* section :
       {"{kind: adamw}", "{kind: adamw, weight_decay: 0.1, beta2: 0.9}",
        "{kind: adafactor, min_dim_to_factor: 8}",
        "{kind: adafactor, min_dim_to_factor: 8, beta1: 0.9, weight_decay: 0.01}",
        "{kind: adafactor, min_dim_to_factor: 8, multiply_by_parameter_scale: false, "
        "clipping_threshold: 0}",
        "{kind: adafactor, min_dim_to_factor: 8, clipping_threshold: 0.3, minimum_scale: 1}",
        "{kind: adafactor, min_dim_to_factor: 8, factor_scope: tensor, scale_scope: tensor, "
        "clip_scope: tensor}",
        "{kind: adafactor, min_dim_to_factor: 8, factor_scope: tensor, beta1: 0.5}",
        "{kind: adafactor, min_dim_to_factor: 8, scale_scope: tensor}",
        "{kind: adafactor, min_dim_to_factor: 8, clip_scope: tensor}"}) {
    INFO(section);
    const Run there = run(section, Device::emu, 2);
    require_same(there, run(section, Device::cpu, 2), {2e-6, 2e-6});
    if (std::string_view(section).find("beta1") == std::string_view::npos) continue;
    require_same(there, run(section, Device::emu, 2), Tolerance::exact());
  }
}

TEST_CASE("sums of squares on a device are the CPU's, whatever the sizes", "[optim][gpu]") {
  std::vector<Tensor> here, there;
  for (int i = 0; i < 300; ++i)
    here.push_back(formula_gradient({i % 7 == 0 ? 0 : 1 + 37 * (i % 11)}, i, 1)
                       .to(i > 200 ? DType::bf16 : DType::f32));
  here.push_back(formula_gradient({70001}, 1, 1));
  here.push_back(formula_gradient({33000}, 1, 1).slice(0, 1, 32999));  // not aligned
  for (const Tensor& tensor : here) there.push_back(tensor.on(Device::emu));
  there.back() = formula_gradient({33000}, 1, 1).on(Device::emu).slice(0, 1, 32999);
  require_close(sums_of_squares(there).on(Device::cpu), values_of(sums_of_squares(here)),
                {0, 1e-13});
  CHECK_FALSE(first_non_finite(there).has_value());
  here[150] = Tensor::full({5000}, DType::f32, 1);
  here[150].span<float>()[4999] = NAN;
  there[150] = here[150].on(Device::emu);
  CHECK(first_non_finite(there) == 150);
}

TEST_CASE("gradients on a device are clipped as on the CPU", "[optim][gpu]") {
  for (Device device : {Device::cpu, Device::emu}) {
    ParameterList parameters;
    for (int64_t size : {1, 12, 1001}) {
      parameters.push_back(
          {format("w{}", size), Var::leaf(Tensor::zeros({size}, DType::f32, device))});
      parameters.back().value.set_grad(Tensor::full({size}, DType::f32, 2.0, device));
    }
    CHECK(global_gradient_norm(parameters) == std::sqrt(4.0 * 1014));
    scale_gradients(parameters, 0.25);
    for (const Parameter& parameter : parameters)
      require_close(parameter.value.grad().on(Device::cpu),
                    std::vector<double>(static_cast<size_t>(parameter.value.numel()), 0.5),
                    Tolerance::exact());
  }
}

}  // namespace stmoe::test
