// SPDX-License-Identifier: Apache-2.0
// Fragments against the layouts of the PTX manual, written out here once more, and the product
// against a plain one.
#include "cuda/device/mma.h"

#include <vector>

#include <catch2/catch.hpp>

#include "cuda/emu/memory.h"
#include "cuda/runtime/launch.h"
#include "lib/base/random.h"

namespace stmoe::gpu {
namespace {

constexpr int kStride = 24;

STMOE_KERNEL load_and_multiply(FragmentA* a, FragmentB* b_of_columns, FragmentB* b_of_rows,
                               FragmentC* c, const bf16* matrices) {
  STMOE_SHARED(bf16, tile, 3 * 16 * kStride);
  const int warp = warp_index() * 32;
  for (int i = thread_index(); i < 3 * 16 * 16; i += block_threads())
    tile[i / 16 * kStride + i % 16] = matrices[i];
  STMOE_SYNC_THREADS();
  const int at = warp + lane_index();
  load_a(a[at], tile, kStride);
  FragmentB columns[2], rows[2];
  load_b_of_columns(columns, tile + 16 * kStride, kStride);
  load_b_of_rows(rows, tile + 32 * kStride, kStride);
  for (int i = 0; i < 2; ++i) {
    b_of_columns[2 * at + i] = columns[i];
    b_of_rows[2 * at + i] = rows[i];
  }
  mma(c[at], a[at], rows[1]);
}

float at(const std::vector<bf16>& matrices, int matrix, int row, int column) {
  return static_cast<float>(matrices[static_cast<size_t>((matrix * 16 + row) * 16 + column)]);
}

float half(uint32_t pair, int i) { return as_float(i == 0 ? pair << 16 : pair & 0xffff0000u); }

}  // namespace

TEST_CASE("a warp's fragments and their product are laid out as on tensor cores", "[emu][mma]") {
  const emu::HostPointers host_pointers;
  std::vector<bf16> matrices(3 * 256);
  for (size_t i = 0; i < matrices.size(); ++i)
    matrices[i] = bf16(random_uniform(RandomKey{3}, i) - 0.5f);
  std::vector<FragmentA> a(64);
  std::vector<FragmentB> columns(128), rows(128);
  std::vector<FragmentC> c(64, FragmentC{{1, 2, 3, 4}});
  launch(load_and_multiply, Grid{}, 64, 0, a.data(), columns.data(), rows.data(), c.data(),
         matrices.data());
  for (int lane = 0; lane < 64; ++lane) {
    const int g = lane % 32 / 4, t = lane % 4;
    const auto place = static_cast<size_t>(lane);
    for (int i = 0; i < 2; ++i) {
      CHECK(half(a[place].r[0], i) == at(matrices, 0, g, 2 * t + i));
      CHECK(half(a[place].r[1], i) == at(matrices, 0, g + 8, 2 * t + i));
      CHECK(half(a[place].r[2], i) == at(matrices, 0, g, 2 * t + 8 + i));
      CHECK(half(a[place].r[3], i) == at(matrices, 0, g + 8, 2 * t + 8 + i));
      for (int n = 0; n < 2; ++n)
        for (int k = 0; k < 2; ++k) {
          const size_t pair = 2 * place + static_cast<size_t>(n);
          CHECK(half(columns[pair].r[k], i) == at(matrices, 1, 8 * n + g, 8 * k + 2 * t + i));
          CHECK(half(rows[pair].r[k], i) == at(matrices, 2, 8 * k + 2 * t + i, 8 * n + g));
        }
    }
    for (int i = 0; i < 4; ++i) {
      double sum = i + 1;
      for (int k = 0; k < 16; ++k)
        sum += static_cast<double>(at(matrices, 0, g + i / 2 * 8, k)) *
               static_cast<double>(at(matrices, 2, k, 8 + 2 * t + i % 2));
      CHECK(c[place].r[i] == Approx(sum).epsilon(1e-6));
    }
  }
}

TEST_CASE("sums become the left operand of the next product", "[emu][mma]") {
  const FragmentA a = a_of_sums({{1, 2, 3, 4}}, {{5, 6, 7, 1.00390625f}});
  for (int r = 0; r < 3; ++r) {
    CHECK(half(a.r[r], 0) == static_cast<float>(2 * r + 1));
    CHECK(half(a.r[r], 1) == static_cast<float>(2 * r + 2));
  }
  CHECK(half(a.r[3], 1) == 1);  // half way, to even
}

}  // namespace stmoe::gpu
