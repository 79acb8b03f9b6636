// SPDX-License-Identifier: Apache-2.0
// Optimizers on weights that are not stored as f32, on the CPU and on the emulated device.
#include <catch2/catch.hpp>

#include "lib/tensor/weight_tensor.h"
#include "tests/optim/formula.h"
#include "tests/support/close.h"

namespace stmoe::test {
namespace {

const std::pair<Shape, int> kShapes[] = {{{67, 33}, 0},  {{10, 1044}, 0},  {{3, 30, 20}, 1},
                                         {{5, 9, 7}, 1}, {{31, 29, 6}, 1}, {{40, 3, 12}, 1},
                                         {{8300}, 0},    {{77}, 0},        {{2, 4, 2100}, 1}};

struct Run {
  ParameterList parameters;
  std::unique_ptr<Optimizer> optimizer;
};

Run run(const std::string& section, WeightStorage storage, Device device, int64_t steps = 3) {
  Run result;
  for (const auto& [shape, stacked] : kShapes) {
    const int number = static_cast<int>(result.parameters.size());
    const WeightTensor weight = WeightTensor::persistent(shape, storage, device);
    weight.assign(formula_weight(shape, number));
    result.parameters.push_back(
        {format("w{}", number), Var::leaf(weight, RandomKey{7}.fold(number)), stacked});
  }
  result.optimizer = optimizer_of(section, result.parameters);
  for (int64_t step = 0; step < steps; ++step) {
    for (size_t p = 0; p < result.parameters.size(); ++p) {
      const Var& value = result.parameters[p].value;
      value.set_grad(formula_gradient(value.shape(), static_cast<int>(p), step).on(device));
    }
    result.optimizer->update(result.parameters, 0.01, step);
  }
  return result;
}

const char* const kSections[] = {
    "{kind: adamw, weight_decay: 0.1}", "{kind: adafactor, min_dim_to_factor: 8}",
    "{kind: adafactor, min_dim_to_factor: 8, beta1: 0.9, weight_decay: 0.01}",
    "{kind: adafactor, min_dim_to_factor: 8, factor_scope: tensor, scale_scope: tensor, "
    "clip_scope: tensor}"};

}  // namespace

TEST_CASE("split weights are updated to the bits of f32 ones", "[optim][weights][gpu]") {
  for (const char* section : kSections)
    for (Device device : {Device::cpu, Device::emu}) {
      INFO(section << " on " << name_of(device));
      const Run plain = run(section, WeightStorage::f32, device);
      const Run split = run(section, WeightStorage::split, device);
      for (size_t p = 0; p < plain.parameters.size(); ++p) {
        INFO(plain.parameters[p].value.shape().text());
        const WeightTensor weight = split.parameters[p].value.weight();
        require_same_bits(weight.on_host(), plain.parameters[p].value.weight().on_host());
        require_close(weight.value.on(Device::cpu), weight.on_host().to(DType::bf16),
                      {0, 0x1p-7});  // ties go up
      }
      const auto states = split.optimizer->state(), expected = plain.optimizer->state();
      REQUIRE(states.size() == expected.size());
      for (size_t i = 0; i < states.size(); ++i)
        require_same_bits(states[i].tensor.on(Device::cpu), expected[i].tensor.on(Device::cpu));
    }
}

TEST_CASE("stochastic rounding draws the same words on a device as on the CPU",
          "[optim][weights][gpu]") {
  for (const char* section : kSections) {
    INFO(section);
    const Run here = run(section, WeightStorage::bf16_stochastic, Device::cpu, 1);
    const Run there = run(section, WeightStorage::bf16_stochastic, Device::emu, 1);
    const Run again = run(section, WeightStorage::bf16_stochastic, Device::emu, 1);
    for (size_t p = 0; p < here.parameters.size(); ++p) {
      const Tensor a = here.parameters[p].value.weight().value;
      const Tensor b = there.parameters[p].value.weight().value.on(Device::cpu);
      require_same_bits(again.parameters[p].value.weight().value.on(Device::cpu), b);
      // An update that is rounded another way in its last bit may tip a rounding here and there.
      int64_t different = 0;
      for (int64_t i = 0; i < a.numel(); ++i)
        different += a.data<bf16>()[i].bits != b.data<bf16>()[i].bits;
      INFO(a.shape().text());
      CHECK(different * 500 <= a.numel());
    }
  }
}

TEST_CASE("stochastic rounding does not depend on how a kernel shares out the weight",
          "[optim][weights][gpu]") {
  // The same update with a gradient that is not aligned: one element at a time, not four.
  std::vector<Tensor> results;
  for (int64_t offset : {0, 1}) {
    const WeightTensor weight =
        WeightTensor::persistent({24, 40}, WeightStorage::bf16_stochastic, Device::emu);
    weight.assign(formula_weight({24, 40}, 1));
    const ParameterList parameters = {{"w", Var::leaf(weight, RandomKey{5})}};
    const auto optimizer = optimizer_of("{kind: adamw}", parameters);
    const Tensor gradient = Tensor::empty({24 * 40 + 1}, DType::f32, Device::emu);
    const Tensor part = gradient.slice(0, offset, offset + 24 * 40);
    part.copy_from(formula_gradient({24, 40}, 1, 0).reshape({24 * 40}).on(Device::emu));
    parameters[0].value.set_grad(part.reshape({24, 40}));
    optimizer->update(parameters, 0.01, 0);
    results.push_back(weight.value.on(Device::cpu));
  }
  require_same_bits(results[1], results[0]);
}

TEST_CASE("small updates add up in bf16 weights with stochastic rounding", "[optim][weights]") {
  // 50 updates of 2e-4 from 1, where neighbours are 2^-8 and 2^-7 apart: to the nearest, nothing
  // would ever move.
  const int64_t count = 20000, steps = 50;
  const WeightTensor weight =
      WeightTensor::persistent({count}, WeightStorage::bf16_stochastic, Device::cpu);
  weight.assign(Tensor::full({count}, DType::f32, 1.0));
  const ParameterList parameters = {{"w", Var::leaf(weight, RandomKey{5})}};
  const auto optimizer = optimizer_of("{kind: adamw}", parameters);
  for (int64_t step = 0; step < steps; ++step) {
    parameters[0].value.set_grad(Tensor::full({count}, DType::f32, 3.0));
    optimizer->update(parameters, 2e-4, step);
  }
  double sum = 0;
  for (double value : values_of(weight.on_host())) sum += value;
  require_close(sum / static_cast<double>(count), 1 - 2e-4 * steps, {2e-4, 0});
}

TEST_CASE("a weight that is not stored as f32 is there for products only", "[optim][weights]") {
  const WeightTensor weight = WeightTensor::persistent({3}, WeightStorage::split, Device::cpu);
  const Var value = Var::leaf(weight, {});
  CHECK(value.dtype() == DType::f32);
  CHECK(value.value_as(DType::bf16).raw() == weight.value.raw());
  CHECK_THROWS_AS(value.value(), BugError);
  CHECK_THROWS_AS(value.value_as(DType::f32), BugError);
}

}  // namespace stmoe::test
