// SPDX-License-Identifier: Apache-2.0
// Twenty steps of Adafactor against t5x and optax: weights after 1, 5 and 20 steps, second moments
// at the end.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "lib/hdf5/file.h"
#include "tests/optim/formula.h"
#include "tests/support/close.h"

namespace stmoe::test {
namespace {

using Json = nlohmann::json;

// The goldens are f32 and lie up to 3e-7 from an f64 run of the equations
// ("max_difference_from_f64").
constexpr Tolerance kWeights{1e-6, 1e-6}, kMoments{1e-7, 1e-5};

std::string section_of(const Json& golden) {
  const std::string scope = golden["scope"];
  return format(
      "{{kind: adafactor, beta1: {}, weight_decay: {}, multiply_by_parameter_scale: {}, "
      "factor_scope: {}, "
      "scale_scope: {}, clip_scope: {}}}",
      golden["beta1"].get<double>(), golden["weight_decay"].get<double>(),
      golden["multiply_by_parameter_scale"].get<bool>(), scope, scope, scope);
}

std::vector<double> read(const Hdf5File& file, const std::string& path) {
  const auto values = file.dataset(path).values<float>();
  return {values.begin(), values.end()};
}

void compare_weight(const Hdf5File& file, const std::string& name, int64_t steps,
                    const Tensor& weight) {
  const std::string path = format("{}/after_{}", name, steps), sampled = path + "_sampled";
  INFO(path);
  if (file.contains(path)) return require_close(weight, read(file, path), kWeights);
  const auto expected = read(file, sampled), all = values_of(weight);
  const auto stride = static_cast<size_t>(file.integer_attribute("sample_stride"));
  std::vector<double> kept;
  for (size_t i = 0; i < all.size(); i += stride) kept.push_back(all[i]);
  require_close(Tensor::from({static_cast<int64_t>(kept.size())}, kept), expected, kWeights);
}

void compare_moments(const Hdf5File& file, const Json& golden, const Optimizer& optimizer) {
  const std::string name = golden["name"];
  // Ours names them by memory order, t5x by size (v_row averages over the largest axis) or by its
  // rule for stacks.
  const auto shape = golden["shape"].get<std::vector<int64_t>>();
  const bool is_swapped = golden["scope"] == "tensor" &&
                          golden["v_row_averages_axis"].is_number() &&
                          golden["v_row_averages_axis"] != static_cast<int64_t>(shape.size()) - 1;
  const std::pair<const char*, const char*> slots[] = {{"v_row", is_swapped ? "v_col" : "v_row"},
                                                       {"v_column", is_swapped ? "v_row" : "v_col"},
                                                       {"v", "v"},
                                                       {"m", "m"}};
  for (const auto& [ours, theirs] : slots) {
    INFO(name << "/" << ours);
    const Tensor state = find_state(optimizer, std::string("w/") + ours);
    const std::string path = name + "/" + theirs;
    REQUIRE(state.defined() == file.contains(path));
    if (state.defined()) require_close(state, read(file, path), kMoments);
  }
}

}  // namespace

TEST_CASE("adafactor follows t5x and optax over twenty steps", "[optim][adafactor][golden]") {
  const Hdf5File file = Hdf5File::open(STMOE_SOURCE_DIR "/tests/golden/adafactor.h5");
  const double rate = file.number_attribute("learning_rate");
  const Json cases = Json::parse(file.string_attribute("cases"));
  REQUIRE(cases.size() >= 12);
  for (const Json& golden : cases) {
    const std::string name = golden["name"];
    const Shape shape(golden["shape"].get<std::vector<int64_t>>());
    const int number = golden["number"];
    const bool is_stacked = shape.rank() == 3;
    const ParameterList parameters = {
        {"w", Var::leaf(formula_weight(shape, number)), is_stacked ? 1 : 0}};
    const auto optimizer = optimizer_of(section_of(golden), parameters);
    for (int64_t step = 0; step < file.integer_attribute("steps"); ++step) {
      const double factor =
          step == golden["spike_step"] ? golden["spike_factor"].get<double>() : 1.0;
      parameters[0].value.set_grad(formula_gradient(shape, number, step, factor));
      optimizer->update(parameters, rate, step);
      if (step == 0 || step == 4 || step == 19)
        compare_weight(file, name, step + 1, parameters[0].value.value());
    }
    compare_moments(file, golden, *optimizer);
  }
}

}  // namespace stmoe::test
