// SPDX-License-Identifier: Apache-2.0
// What kernels share (cuda/device): sums and orders over a block and a device, dropout masks.
#include <algorithm>
#include <numeric>
#include <vector>

#include <catch2/catch.hpp>

#include "cuda/device/column_sums.h"
#include "cuda/device/dropout_mask.h"
#include "cuda/device/radix_order.h"
#include "tests/support/close.h"

namespace stmoe::gpu {
namespace {

STMOE_KERNEL running_sums(int32_t* before, int32_t* total, int32_t* most, const int32_t* x) {
  STMOE_SHARED(int32_t, partial, 2 * kWarp);
  const int32_t value = x[thread_index()];
  before[thread_index()] = block_exclusive_sum(value, total + thread_index(), partial);
  most[thread_index()] = block_max(value, partial + kWarp);
}

template <int V>
STMOE_KERNEL drop_ones(float* y, int64_t units, UnitMask<float> mask) {
  const int64_t unit = block_index() * block_threads() + thread_index();
  if (unit < units) {
    float values[V];
    for (float& value : values) value = 1;
    drop_out(values, mask, unit);
    store_values(y + unit * V, values);
  }
}

std::vector<int32_t> draw(size_t count, uint32_t below) {
  std::vector<int32_t> values;
  for (size_t i = 0; i < count; ++i)
    values.push_back(static_cast<int32_t>(random_bits(RandomKey{3}, i) % below));
  return values;
}

std::vector<int32_t> ints(const Tensor& tensor) {
  const Tensor there = tensor.on(Device::cpu);
  return {there.span<int32_t>().begin(), there.span<int32_t>().end()};
}

Tensor on_emu(const std::vector<int32_t>& values) {
  return Tensor::from<int32_t>({static_cast<int64_t>(values.size())}, values).on(Device::emu);
}

TEST_CASE("a block's running sums and largest value", "[emu][device]") {
  for (size_t threads : {32, 96, 1024}) {
    const std::vector<int32_t> x = draw(threads, 1000);
    const Tensor values = on_emu(x);
    const Tensor before = Tensor::empty_like(values), total = Tensor::empty_like(values);
    const Tensor most = Tensor::empty_like(values);
    launch(running_sums, Grid{}, static_cast<int>(threads), 0, before.data<int32_t>(),
           total.data<int32_t>(), most.data<int32_t>(), values.data<int32_t>());
    std::vector<int32_t> expected(threads);
    std::exclusive_scan(x.begin(), x.end(), expected.begin(), 0);
    REQUIRE(ints(before) == expected);
    REQUIRE(ints(total) == std::vector<int32_t>(threads, std::accumulate(x.begin(), x.end(), 0)));
    REQUIRE(ints(most) == std::vector<int32_t>(threads, *std::ranges::max_element(x)));
  }
}

TEST_CASE("radix_order is a stable order of the keys", "[emu][device]") {
  for (size_t count : {0, 1, 33, 2048, 5000})
    for (int bits : {0, 5, 8, 13, 20}) {
      INFO(count << " keys of " << bits << " bits");
      const std::vector<int32_t> keys = draw(count, uint32_t{1} << bits);
      const Tensor there = on_emu(keys);
      const Tensor order = radix_order(reinterpret_cast<const uint32_t*>(there.data<int32_t>()),
                                       static_cast<int64_t>(count), bits, Device::emu);
      std::vector<int32_t> expected(count);
      std::iota(expected.begin(), expected.end(), 0);
      std::ranges::stable_sort(expected, {},
                               [&](int32_t i) { return keys[static_cast<size_t>(i)]; });
      REQUIRE(ints(order) == expected);
    }
}

TEST_CASE("columns of several matrices add up, also to what is there", "[emu][device]") {
  constexpr int64_t kMatrices = 3, kRows = 70, kColumns = 45;
  const Tensor partial = Tensor::empty({kMatrices, kRows, kColumns}, DType::f32);
  std::vector<double> expected(kMatrices * kColumns, 1.0);
  for (size_t i = 0; i < partial.span<float>().size(); ++i) {
    partial.span<float>()[i] = random_uniform(RandomKey{7}, i) - 0.5f;
    expected[i / (kRows * kColumns) * kColumns + i % kColumns] +=
        static_cast<double>(partial.span<float>()[i]);
  }
  const Tensor there = partial.on(Device::emu);
  const Tensor sum = Tensor::full({kMatrices, kColumns}, DType::f32, 1, Device::emu);
  sum_columns(sum.data<float>(), there.data<float>(), kMatrices, kRows, kColumns, true);
  test::require_close(sum.on(Device::cpu), expected, {1e-5, 1e-5});
}

TEST_CASE("dropout masks in units are the CPU's words", "[emu][device]") {
  for (int broadcast_dim : {-1, 0, 1}) {
    const Shape shape = {3, 5, 16};
    const Dropout dropout{0.4, RandomKey{9}, broadcast_dim, 2};
    const DropoutMask mask = dropout_mask("test", shape, dropout);
    std::vector<double> expected;
    for (int64_t i = 0; i < shape.numel(); ++i) {
      const int64_t outer = i / (mask.shared * mask.inner), inner = i % mask.inner;
      const uint64_t element = mask.first + static_cast<uint64_t>(outer * mask.inner + inner);
      expected.push_back(random_uniform(dropout.key, element) >= 0.4 ? 1 / 0.6 : 0);
    }
    const Tensor y = Tensor::empty({shape.numel()}, DType::f32, Device::emu);
    const auto check = [&](auto v) {
      constexpr int V = decltype(v)::value;
      REQUIRE(tiles_mask(V, mask));
      launch(drop_ones<V>, blocks_for(shape.numel() / V, 64), 64, 0, y.data<float>(),
             shape.numel() / V, unit_mask<float>(mask, V));
      test::require_close(y.on(Device::cpu), expected, {0, 1e-6});
    };
    check(std::integral_constant<int, 1>{});
    check(std::integral_constant<int, 2>{});
    check(std::integral_constant<int, 4>{});
    check(std::integral_constant<int, 8>{});
  }
  CHECK_FALSE(tiles_mask(4, dropout_mask("test", {2, 3, 6}, {0.4, RandomKey{9}, 1, 0})));
}

}  // namespace
}  // namespace stmoe::gpu
