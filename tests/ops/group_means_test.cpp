// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/group_means.h"

#include <catch2/catch.hpp>

#include "lib/ops/add.h"
#include "lib/ops/load_balance_loss.h"
#include "tests/ops/choices.h"
#include "tests/support/op_case.h"

namespace stmoe::test {
namespace {

OpCase make_case(int64_t groups, int64_t tokens, int64_t experts, bool is_masked) {
  std::vector<int32_t> mask(static_cast<size_t>(groups * tokens), 1);
  for (size_t n = 0; n < mask.size(); n += 3) mask[n] = is_masked ? 0 : 1;
  const Tensor mask_N =
      is_masked ? Tensor::from<int32_t>({groups * tokens}, mask).clone() : Tensor();
  OpCase result;
  result.name =
      format("group_means {}x{}x{}{}", groups, tokens, experts, is_masked ? ", masked" : "");
  result.inputs = {{{groups * tokens, experts}, 0, 1}};
  result.dtypes = {DType::f64, DType::f32};
  result.call = [=](const OpArguments& x) {
    return group_means(x[0], groups, x.on_device(mask_N));
  };
  result.reference = [=](const OpValues& x) {
    OpValues y(1, std::vector<double>(static_cast<size_t>(groups * experts)));
    for (size_t i = 0; i < x[0].size(); ++i) {
      const size_t n = i / static_cast<size_t>(experts), e = i % static_cast<size_t>(experts);
      const size_t g = n / static_cast<size_t>(tokens);
      y[0][g * static_cast<size_t>(experts) + e] += mask[n] * x[0][i] / static_cast<double>(tokens);
    }
    return y;
  };
  return result;
}

TEST_CASE("group_means is the mean over the tokens of a group", "[ops][router]") {
  check_ops({make_case(1, 1, 1, false), make_case(1, 6, 3, false), make_case(3, 5, 4, true),
             make_case(2, 1500, 64, true), make_case(2, 40, 300, true)});
}

TEST_CASE("choice_shares counts a group's choices over its tokens", "[ops][router]") {
  const Tensor expert = Tensor::from<int32_t>({4, 2}, {0, 1, 0, -1, 2, 0, 2, 1});
  REQUIRE(values_of(choice_shares(expert, 1, 3, DType::f64)) ==
          std::vector<double>{0.75, 0.5, 0.5});
  REQUIRE(values_of(choice_shares(expert, 2, 3, DType::f32)) ==
          std::vector<double>{1, 0.5, 0, 0.5, 0.5, 1});
  // Without a place: expert 0; no choice: nobody. Shares of half a group of real tokens: halves.
  const Tensor slot = Tensor::from<int32_t>({4, 2}, {0, -1, 1, -1, -1, 2, 0, 1});
  const Tensor real = Tensor::from<int32_t>({4}, {1, 1, 0, 1});
  for (DType dtype : {DType::f32, DType::f64}) {
    REQUIRE(values_of(choice_shares(expert, 1, 3, dtype, {slot, Tensor()})) ==
            std::vector<double>{1.25, 0.25, 0.25});
    REQUIRE(values_of(choice_shares(expert, 2, 3, dtype, {Tensor(), real})) ==
            std::vector<double>{1, 0.5, 0, 0.25, 0.25, 0.5});
    REQUIRE(values_of(choice_shares(expert, 2, 3, dtype, {Tensor(), Tensor(), 0.5})) ==
            std::vector<double>{0.5, 0.25, 0, 0.25, 0.25, 0.5});
  }
  REQUIRE_THROWS_WITH(choice_shares(expert, 1, 3, DType::f64, {real, Tensor()}),
                      Catch::Contains("slots [4]"));
  REQUIRE_THROWS_WITH(choice_shares(expert, 1, 2, DType::f64), Catch::Contains("expert 2 of 2"));
  REQUIRE_THROWS_WITH(choice_shares(expert, 3, 3, DType::f64), Catch::Contains("3 groups of 4"));
}

TEST_CASE("a GPU counts the CPU's shares", "[ops][router]") {
  const Tensor expert = draw_choices(1200, 2, 37, 5), slot = draw_choices(1200, 2, 9, 4);
  const Tensor real = draw_choices(1200, 1, 1, 3).reshape({1200});
  for (DType dtype : {DType::f32, DType::f64})
    for (const ShareOptions& options :
         {ShareOptions{}, ShareOptions{slot, Tensor(), 0.5}, ShareOptions{slot, real}}) {
      ShareOptions there = options;
      for (Tensor* tensor : {&there.slot_NK, &there.real_N})
        if (tensor->defined()) *tensor = tensor->on(Device::emu);
      const Tensor shares = choice_shares(expert.on(Device::emu), 3, 37, dtype, there);
      require_same_bits(shares.on(Device::cpu), choice_shares(expert, 3, 37, dtype, options));
    }
}

TEST_CASE("shares times means, times experts, is the load-balance loss", "[ops][router]") {
  const Tensor expert = draw_choices(12, 2, 5, 7);
  std::vector<double> values;
  for (int i = 0; i < 60; ++i) values.push_back(0.01 * ((i * 37) % 53));
  const Var p(Tensor::from<double>({12, 5}, values));
  const Var product =
      sum(multiply(group_means(p, 3), Var(choice_shares(expert, 3, 5, DType::f64))));
  require_close(product.value().item() * 5 / 3, load_balance_loss(p, expert, 3).value().item(),
                {1e-12, 0});
}

}  // namespace
}  // namespace stmoe::test
