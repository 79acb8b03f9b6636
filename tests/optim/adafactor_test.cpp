// SPDX-License-Identifier: Apache-2.0
// Adafactor on cases small enough to check by hand, and what must hold for any gradient.
#include "lib/optim/adafactor.h"

#include <algorithm>

#include <catch2/catch.hpp>

#include "lib/base/threads.h"
#include "tests/optim/formula.h"
#include "tests/support/close.h"

namespace stmoe::test {
namespace {

constexpr int64_t kExperts = 3;

Factoring factoring_of(const Shape& shape, int stacked_dims, const std::string& scope) {
  AdafactorConfig config;
  config.factor_scope = scope;
  return choose_factoring(shape, stacked_dims, config);
}

// Elements of a factored weight, each addressed once.
void require_covers(const Factoring& f, const Shape& shape) {
  std::vector<int> seen(static_cast<size_t>(shape.numel()));
  for (int64_t b = 0; b < f.batches; ++b)
    for (int64_t i = 0; i < f.rows; ++i)
      for (int64_t j = 0; j < f.columns; ++j)
        ++seen.at(static_cast<size_t>(b * f.batch_stride + i * f.row_stride + j * f.column_stride));
  REQUIRE(std::all_of(seen.begin(), seen.end(), [](int times) { return times == 1; }));
}

// Weights of several shapes after `steps` updates; one of them stacked.
ParameterList run(const std::string& section, int64_t steps, DType dtype = DType::f32) {
  const std::pair<Shape, int> kShapes[] = {
      {{257, 300}, 0}, {{kExperts, 130, 140}, 1}, {{70001}, 0}, {{16, 200}, 0}};
  ParameterList parameters;
  for (const auto& [shape, stacked] : kShapes) {
    const int number = static_cast<int>(parameters.size());
    parameters.push_back(
        {format("w{}", number), Var::leaf(formula_weight(shape, number, dtype)), stacked});
  }
  const auto optimizer = optimizer_of(section, parameters);
  for (int64_t step = 0; step < steps; ++step) {
    for (size_t p = 0; p < parameters.size(); ++p) {
      const Var& value = parameters[p].value;
      value.set_grad(formula_gradient(value.shape(), static_cast<int>(p), step, 1, dtype));
    }
    optimizer->update(parameters, 0.01, step);
  }
  return parameters;
}

}  // namespace

TEST_CASE("adafactor gives the worked example of the reference", "[optim][adafactor]") {
  for (DType dtype : {DType::f32, DType::f64}) {
    INFO(name_of(dtype));
    const ParameterList parameters = {
        {"w", Var::leaf(Tensor::from<double>({2, 3}, {.5, -1, 2, 1.5, .25, -.75}).to(dtype))}};
    const auto optimizer = optimizer_of("{kind: adafactor, min_dim_to_factor: 2}", parameters);
    const std::vector<double> gradients[] = {{.1, -.2, .3, .05, .4, -.6},
                                             {.2, .1, -.1, -.3, .2, .5}};
    const std::vector<double> expected[] = {
        {.48034354, -.99017177, 1.99017177, 1.49491260, .23982519, -.73982519},
        {.46116221, -.99821062, 1.99481755, 1.50820504, .23239742, -.75055677}};
    for (int64_t step = 0; step < 2; ++step) {
      parameters[0].value.set_grad(Tensor::from({2, 3}, gradients[step]).to(dtype));
      optimizer->update(parameters, 0.01, step);
      require_close(parameters[0].value.value(), expected[step], {1e-7, 1e-7});
    }
    require_close(find_state(*optimizer, "w/v_row"), {.03135069, .14688508}, {1e-8, 1e-6});
    require_close(find_state(*optimizer, "w/v_column"), {.03999301, .05692381, .17043683},
                  {1e-8, 1e-6});
  }
}

TEST_CASE("adafactor factors the two largest dimensions of a weight when both are large enough",
          "[optim][adafactor]") {
  struct Expected {
    Shape shape;
    int stacked_dims;
    const char* scope;
    Shape row_shape, column_shape;  // of rank 0 when not factored
  };
  const Expected cases[] = {
      {{512}, 0, "expert", {}, {}},
      {{}, 0, "expert", {}, {}},
      {{128, 127}, 0, "expert", {}, {}},
      {{127, 128}, 0, "tensor", {}, {}},
      {{128, 128}, 0, "expert", {128}, {128}},
      {{32128, 512}, 0, "expert", {32128}, {512}},
      {{512, 32128}, 0, "tensor", {512}, {32128}},
      // Every expert on its own: whatever its size, and never over the experts.
      {{8, 12, 10}, 1, "expert", {8, 12}, {8, 10}},
      {{4096, 128, 256}, 1, "expert", {4096, 128}, {4096, 256}},
      {{8, 512}, 1, "expert", {}, {}},
      // The stack as one weight: the two largest of all three, the later of equal ones.
      {{8, 12, 10}, 1, "tensor", {}, {}},
      {{8, 512, 2048}, 1, "tensor", {8, 512}, {8, 2048}},
      {{4096, 128, 256}, 1, "tensor", {4096, 128}, {128, 256}},
      {{4096, 256, 128}, 1, "tensor", {4096, 128}, {256, 128}},
      {{256, 256, 256}, 1, "tensor", {256, 256}, {256, 256}},
      {{256, 128, 256}, 1, "tensor", {256, 128}, {128, 256}},
      {{300, 300, 200}, 1, "tensor", {300, 200}, {300, 200}},
  };
  for (const Expected& expected : cases) {
    INFO(expected.shape.text() << " by " << expected.scope);
    const Factoring f = factoring_of(expected.shape, expected.stacked_dims, expected.scope);
    REQUIRE(f.is_factored() == (expected.row_shape.rank() > 0));
    if (!f.is_factored()) continue;
    CHECK(f.row_shape == expected.row_shape);
    CHECK(f.column_shape == expected.column_shape);
    CHECK(f.batches * f.rows * f.columns == expected.shape.numel());
    if (expected.shape.numel() < 1 << 21) require_covers(f, expected.shape);
  }
}

TEST_CASE("adafactor treats a stacked expert as it would treat it alone", "[optim][adafactor]") {
  const Shape stack{kExperts, 130, 140}, alone{130, 140};
  const ParameterList together = {{"w", Var::leaf(formula_weight(stack, 1)), 1}};
  const auto stacked = optimizer_of("{kind: adafactor}", together);
  for (int64_t expert = 0; expert < kExperts; ++expert) {
    const Tensor start = formula_weight(stack, 1).slice(0, expert, expert + 1).reshape(alone);
    const ParameterList single = {{"w", Var::leaf(start.clone_to_heap())}};
    const auto optimizer = optimizer_of("{kind: adafactor}", single);
    for (int64_t step = 0; step < 3; ++step) {
      // Gradients of very different size: an RMS over the stack would show.
      Tensor gradient = formula_gradient(stack, 1, step);
      for (int64_t other = 0; other < kExperts; ++other) {
        const Tensor part = gradient.slice(0, other, other + 1);
        for (float& value : part.span<float>()) value *= std::pow(10.0f, static_cast<float>(other));
      }
      if (expert == 0) {
        together[0].value.set_grad(gradient.clone());
        stacked->update(together, 0.01, step);
      }
      single[0].value.set_grad(gradient.slice(0, expert, expert + 1).reshape(alone).clone());
      optimizer->update(single, 0.01, step);
    }
    const Tensor part = together[0].value.value().slice(0, expert, expert + 1).reshape(alone);
    require_same_bits(part, single[0].value.value());
  }
}

TEST_CASE("adafactor over a stack that is largest in its experts equals the transposed weight",
          "[optim][adafactor]") {
  // [200, 3, 130] by the stack factors over dimensions 0 and 2; moved to [3, 200, 130] it is the
  // plain case.
  const int64_t experts = 200, middle = 3, columns = 130;
  const std::string section =
      "{kind: adafactor, factor_scope: tensor, scale_scope: tensor, clip_scope: tensor}";
  auto moved = [&](const Tensor& values) { return values.transpose(0, 1).contiguous(); };
  const Tensor start = formula_weight({experts, middle, columns}, 4);
  const ParameterList first = {{"w", Var::leaf(start), 1}};
  const ParameterList second = {{"w", Var::leaf(moved(start)), 1}};
  const auto one = optimizer_of(section, first), other = optimizer_of(section, second);
  for (int64_t step = 0; step < 4; ++step) {
    const Tensor gradient = formula_gradient({experts, middle, columns}, 4, step);
    second[0].value.set_grad(moved(gradient));
    first[0].value.set_grad(gradient);
    one->update(first, 0.01, step);
    other->update(second, 0.01, step);
  }
  require_close(moved(first[0].value.value()), second[0].value.value(), {1e-6, 1e-6});
  CHECK(find_state(*one, "w/v_row").shape() == Shape{experts, middle});
  CHECK(find_state(*one, "w/v_column").shape() == Shape{middle, columns});
}

TEST_CASE("adafactor gives the same bits with any number of threads", "[optim][adafactor]") {
  const int before = num_threads();
  for (const char* scope : {"expert", "tensor"}) {
    const std::string section = format(
        "{{kind: adafactor, beta1: 0.9, weight_decay: 0.01, factor_scope: {0}, scale_scope: {0}, "
        "clip_scope: {0}}}",
        scope);
    set_num_threads(1);
    const ParameterList one = run(section, 3);
    for (int threads : {2, 3, 7}) {
      set_num_threads(threads);
      const ParameterList many = run(section, 3);
      for (size_t p = 0; p < one.size(); ++p)
        require_same_bits(many[p].value.value(), one[p].value.value());
    }
  }
  set_num_threads(before);
}

TEST_CASE("adafactor in f32 stays at its f64 run", "[optim][adafactor]") {
  const ParameterList single = run("{kind: adafactor}", 10);
  const ParameterList exact = run("{kind: adafactor}", 10, DType::f64);
  for (size_t p = 0; p < single.size(); ++p)
    require_close(single[p].value.value(), exact[p].value.value(), {2e-6, 2e-6});
}

TEST_CASE("a zero gradient leaves weights as they are, factored or not", "[optim][adafactor]") {
  for (const Shape& shape : {Shape{130, 140}, Shape{9, 10}, Shape{130}}) {
    const Tensor start = formula_weight(shape, 2);
    const ParameterList parameters = {{"w", Var::leaf(start.clone_to_heap())}};
    const auto optimizer = optimizer_of("{kind: adafactor}", parameters);
    for (int64_t step = 0; step < 3; ++step) {
      parameters[0].value.set_grad(Tensor::zeros(shape, DType::f32));
      optimizer->update(parameters, 0.01, step);
    }
    require_same_bits(parameters[0].value.value(), start);
  }
}

TEST_CASE("an update without clipping has the RMS that the rate and the weight's scale say",
          "[optim][adafactor]") {
  // Step 0 has b2 = 0: an unfactored u is the sign of the gradient, of RMS one.
  const Shape shape{1000};
  const Tensor start = formula_weight(shape, 3);
  const ParameterList parameters = {{"w", Var::leaf(start.clone_to_heap())}};
  const auto optimizer =
      optimizer_of("{kind: adafactor, multiply_by_parameter_scale: false}", parameters);
  const Tensor gradient = formula_gradient(shape, 3, 0);
  parameters[0].value.set_grad(gradient.clone());
  optimizer->update(parameters, 0.25, 0);
  require_same_bits(parameters[0].value.grad(), gradient);
  std::vector<double> expected = values_of(start);
  for (size_t i = 0; i < expected.size(); ++i)
    expected[i] -= std::copysign(0.25, values_of(gradient)[i]);
  require_close(parameters[0].value.value(), expected, {1e-6, 0});
}

TEST_CASE("adafactor keeps a parameter without a gradient, and restarts b2 at its offset",
          "[optim][adafactor]") {
  const Tensor start = formula_weight({20}, 0);
  auto fresh = [&] {
    return ParameterList{{"a", Var::leaf(start.clone_to_heap())},
                         {"b", Var::leaf(start.clone_to_heap())}};
  };
  const ParameterList plain = fresh(), shifted = fresh();
  const auto first = optimizer_of("{kind: adafactor}", plain);
  const auto second = optimizer_of("{kind: adafactor, step_offset: 1000}", shifted);
  for (int64_t step = 0; step < 3; ++step) {
    plain[0].value.set_grad(formula_gradient({20}, 0, step));
    shifted[0].value.set_grad(formula_gradient({20}, 0, step));
    first->update(plain, 0.01, step);
    second->update(shifted, 0.01, step + 1000);
  }
  require_same_bits(plain[1].value.value(), start);
  require_same_bits(shifted[0].value.value(), plain[0].value.value());
}

TEST_CASE("adafactor's state has one name per slot, in the parameters' order",
          "[optim][adafactor]") {
  const ParameterList parameters = {
      {"shared/embedding", Var::leaf(formula_weight({200, 128}, 0))},
      {"encoder/norm/scale", Var::leaf(formula_weight({128}, 1))},
      {"experts/wi/kernel", Var::leaf(formula_weight({2, 8, 9}, 2)), 1}};
  auto names = [&](const std::string& section) {
    std::vector<std::string> all;
    for (const NamedTensor& state : optimizer_of(section, parameters)->state())
      all.push_back(state.name + " " + state.tensor.shape().text());
    return all;
  };
  using Names = std::vector<std::string>;
  CHECK(names("{kind: adafactor}") ==
        Names{"shared/embedding/v_row [200]", "shared/embedding/v_column [128]",
              "encoder/norm/scale/v [128]", "experts/wi/kernel/v_row [2, 8]",
              "experts/wi/kernel/v_column [2, 9]"});
  CHECK(names("{kind: adafactor, beta1: 0.9, factor_scope: tensor}") ==
        Names{"shared/embedding/v_row [200]", "shared/embedding/v_column [128]",
              "shared/embedding/m [200, 128]", "encoder/norm/scale/v [128]",
              "encoder/norm/scale/m [128]", "experts/wi/kernel/v [2, 8, 9]",
              "experts/wi/kernel/m [2, 8, 9]"});
}

TEST_CASE("adafactor's state is live: restoring it continues the run exactly",
          "[optim][adafactor]") {
  const Shape shape{2, 130, 140};
  auto step_once = [&](const ParameterList& parameters, Optimizer& optimizer, int64_t step) {
    parameters[0].value.set_grad(formula_gradient(shape, 5, step));
    optimizer.update(parameters, 0.01, step);
  };
  const ParameterList whole = {{"w", Var::leaf(formula_weight(shape, 5)), 1}};
  const auto first = optimizer_of("{kind: adafactor, beta1: 0.5}", whole);
  for (int64_t step = 0; step < 3; ++step) step_once(whole, *first, step);
  const ParameterList resumed = {{"w", Var::leaf(whole[0].value.value().clone_to_heap()), 1}};
  const auto second = optimizer_of("{kind: adafactor, beta1: 0.5}", resumed);
  for (const NamedTensor& state : second->state())
    state.tensor.copy_from(find_state(*first, state.name));
  for (int64_t step = 3; step < 6; ++step) {
    step_once(whole, *first, step);
    step_once(resumed, *second, step);
  }
  require_same_bits(resumed[0].value.value(), whole[0].value.value());
}

}  // namespace stmoe::test
