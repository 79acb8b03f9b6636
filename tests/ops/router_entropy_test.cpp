// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/router_entropy.h"

#include <cmath>

#include <catch2/catch.hpp>

#include "lib/base/random.h"
#include "lib/ops/softmax_with_lse.h"
#include "tests/support/close.h"

namespace stmoe::test {
namespace {

double entropy(const Tensor& logits_NE, const Tensor& mask_N = Tensor(),
               Device device = Device::cpu) {
  const Tensor logits = logits_NE.on(device);
  const auto [p_NE, lse_N] = softmax_with_lse(Var(logits));
  const Tensor result = router_entropy(p_NE.value(), logits, lse_N.value(),
                                       mask_N.defined() ? mask_N.on(device) : mask_N);
  REQUIRE(result.device() == device);
  return result.item();
}

TEST_CASE("router_entropy is the mean of -sum p ln p", "[ops][router]") {
  constexpr int64_t kTokens = 3000, kExperts = 40;
  std::vector<double> logits;
  std::vector<int32_t> mask_values;
  double all = 0, real = 0;
  int num_real = 0;
  for (int64_t n = 0; n < kTokens; ++n) {
    double total = 0;
    for (int64_t e = 0; e < kExperts; ++e) {
      logits.push_back(6.0 * random_uniform(RandomKey{1}, logits.size()));
      total += std::exp(logits.back());
    }
    double value = 0;
    for (size_t i = logits.size() - kExperts; i < logits.size(); ++i) {
      const double p = std::exp(logits[i]) / total;
      value -= p * std::log(p);
    }
    mask_values.push_back(n % 3 == 0 ? 0 : 1);
    all += value;
    real += mask_values.back() * value;
    num_real += mask_values.back();
  }
  const Tensor tensor = Tensor::from<double>({kTokens, kExperts}, logits);
  const Tensor mask_N = Tensor::from<int32_t>({kTokens}, mask_values);
  require_close(entropy(tensor), all / kTokens, {1e-12, 1e-12});
  require_close(entropy(tensor.to(DType::f32)), all / kTokens, {1e-6, 1e-6});
  require_close(entropy(tensor, mask_N), real / num_real, {1e-12, 1e-12});
  for (DType dtype : {DType::f32, DType::f64}) {
    const double size = dtype == DType::f32 ? 1e-6 : 1e-12;
    require_close(entropy(tensor.to(dtype), Tensor(), Device::emu), all / kTokens, {size, size});
    require_close(entropy(tensor.to(dtype), mask_N, Device::emu), real / num_real, {size, size});
  }
  REQUIRE(entropy(tensor, Tensor::zeros({kTokens}, DType::i32), Device::emu) == 0);
}

TEST_CASE("router_entropy is ln E when uniform and 0 when certain", "[ops][router]") {
  require_close(entropy(Tensor::full({5, 8}, DType::f32, 3.0)), std::log(8.0), {1e-6, 0});
  require_close(entropy(Tensor::from<float>({1, 3}, {500, 0, -500})), 0.0, {1e-12, 0});
  REQUIRE(entropy(Tensor::zeros({2, 3}, DType::f32), Tensor::zeros({2}, DType::i32)) == 0);
}

}  // namespace
}  // namespace stmoe::test
