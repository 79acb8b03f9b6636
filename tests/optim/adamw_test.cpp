// SPDX-License-Identifier: Apache-2.0
// AdamW and clipping by the global norm against PyTorch.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "lib/base/threads.h"
#include "lib/hdf5/file.h"
#include "lib/optim/gradients.h"
#include "tests/optim/formula.h"
#include "tests/support/close.h"

namespace stmoe::test {
namespace {

using Json = nlohmann::json;

Hdf5File golden_file() { return Hdf5File::open(STMOE_SOURCE_DIR "/tests/golden/adamw.h5"); }

ParameterList parameters_of(const Hdf5File& file) {
  ParameterList parameters;
  for (const Json& golden : Json::parse(file.string_attribute("cases"))) {
    const Shape shape(golden["shape"].get<std::vector<int64_t>>());
    parameters.push_back({golden["name"], Var::leaf(formula_weight(shape, golden["number"]))});
  }
  return parameters;
}

void set_gradients(const ParameterList& parameters, int64_t step) {
  int number = 0;
  for (const Parameter& parameter : parameters)
    parameter.value.set_grad(formula_gradient(parameter.value.shape(), number++, step));
}

std::vector<double> read(const Hdf5File& file, const std::string& path) {
  const auto values = file.dataset(path).values<float>();
  return {values.begin(), values.end()};
}

}  // namespace

TEST_CASE("adamw follows PyTorch over twenty steps", "[optim][adamw][golden]") {
  const Hdf5File file = golden_file();
  const ParameterList parameters = parameters_of(file);
  REQUIRE(parameters.size() == 2);
  const auto optimizer =
      optimizer_of(format("{{kind: adamw, beta1: {}, beta2: {}, epsilon: {}, weight_decay: {}}}",
                          file.number_attribute("beta1"), file.number_attribute("beta2"),
                          file.number_attribute("epsilon"), file.number_attribute("weight_decay")),
                   parameters);
  for (int64_t step = 0; step < file.integer_attribute("steps"); ++step) {
    set_gradients(parameters, step);
    optimizer->update(parameters, file.number_attribute("learning_rate"), step);
    for (const Parameter& parameter : parameters) {
      const std::string path = format("{}/after_{}", parameter.name, step + 1);
      INFO(path);
      if (file.contains(path))
        require_close(parameter.value.value(), read(file, path), {2e-7, 1e-6});
    }
  }
  for (const Parameter& parameter : parameters) {
    INFO(parameter.name);
    require_close(find_state(*optimizer, parameter.name + "/m"),
                  read(file, parameter.name + "/first_moment"), {1e-7, 1e-6});
    require_close(find_state(*optimizer, parameter.name + "/v"),
                  read(file, parameter.name + "/second_moment"), {1e-9, 1e-6});
  }
}

TEST_CASE("adamw gives the same bits with any number of threads", "[optim][adamw]") {
  const int before = num_threads();
  auto run = [](int threads) {
    set_num_threads(threads);
    ParameterList parameters = {{"w", Var::leaf(formula_weight({311, 307}, 0))}};
    const auto optimizer = optimizer_of("{kind: adamw, weight_decay: 0.1}", parameters);
    for (int64_t step = 0; step < 3; ++step) {
      set_gradients(parameters, step);
      optimizer->update(parameters, 0.01, step);
    }
    return parameters[0].value.value();
  };
  const Tensor one = run(1);
  for (int threads : {2, 5}) require_same_bits(run(threads), one);
  set_num_threads(before);
}

TEST_CASE("adamw keeps a parameter without a gradient and lists its slots in order",
          "[optim][adamw]") {
  const Tensor start = formula_weight({6}, 0);
  const ParameterList parameters = {{"b", Var::leaf(start.clone_to_heap())},
                                    {"a", Var::leaf(start.clone_to_heap())}};
  const auto optimizer = optimizer_of("{kind: adamw, weight_decay: 0.1}", parameters);
  parameters[0].value.set_grad(Tensor::zeros({6}, DType::f32));
  optimizer->update(parameters, 0.5, 0);
  require_same_bits(parameters[1].value.value(), start);
  std::vector<double> decayed = values_of(start);
  for (double& value : decayed) value *= 1 - 0.5 * 0.1;
  require_close(parameters[0].value.value(), decayed, {1e-7, 1e-7});
  std::vector<std::string> names;
  for (const NamedTensor& state : optimizer->state()) names.push_back(state.name);
  CHECK(names == std::vector<std::string>{"b/m", "b/v", "a/m", "a/v"});
}

TEST_CASE("clipping by the global norm follows PyTorch", "[optim][gradients][golden]") {
  const Hdf5File file = golden_file();
  for (const std::string name : {"clipped", "untouched"}) {
    INFO(name);
    const ParameterList parameters = parameters_of(file);
    set_gradients(parameters, 0);
    const std::string group = "clipping/" + name;
    const double norm = global_gradient_norm(parameters);
    require_close(norm, read(file, group + "/norm")[0], {0, 1e-6});
    const double limit = read(file, group + "/max_norm")[0];
    if (norm > limit) scale_gradients(parameters, limit / norm);
    for (const Parameter& parameter : parameters)
      require_close(parameter.value.grad(), read(file, group + "/" + parameter.name), {1e-7, 1e-6});
  }
}

}  // namespace stmoe::test
