// SPDX-License-Identifier: Apache-2.0
// Tensor cores: products of bf16 matrices with f32 sums by a warp, mma.sync.m16n8k16 (PTX ISA,
// "Warp Level Matrix Instructions"; sm_80 and later), and the loads of its operands from shared
// memory, ldmatrix. All 32 lanes must come. The emulation exchanges whole fragments in the same
// layouts; it adds products in another order than the hardware, whose order is not documented.
//
// With g = lane / 4 and t = lane % 4, lane holds (pairs: lower half first)
//   of A [16, 16]  r[0]: row g,     columns 2t, 2t + 1     r[1]: row g + 8, the same columns
//                  r[2]: row g,     columns 2t + 8, 2t + 9 r[3]: row g + 8, the same columns
//   of B [16, 8]   r[0]: rows 2t, 2t + 1, column g         r[1]: rows 2t + 8, 2t + 9, column g
//   of C [16, 8]   r[0], r[1]: row g, columns 2t, 2t + 1   r[2], r[3]: row g + 8
// So two neighbouring C, rounded to bf16, are the A of the next product (a_of_sums).
#pragma once

#include "cuda/device/warp.h"

namespace stmoe::gpu {

struct FragmentA {
  uint32_t r[4];
};
struct FragmentB {
  uint32_t r[2];
};
struct FragmentC {
  float r[4];
};

#if defined(__CUDACC__)

// Rounded to nearest even.
STMOE_DEVICE uint32_t pack_bf16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// c += a b.
STMOE_DEVICE void mma(FragmentC& c, const FragmentA& a, const FragmentB& b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c.r[0]), "+f"(c.r[1]), "+f"(c.r[2]), "+f"(c.r[3])
      : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b.r[0]), "r"(b.r[1]));
}

// Four 8 x 8 matrices of bf16: row i % 8 of matrix i / 8 starts at lane i's address, a multiple of
// 16 in shared memory. r[m] is row g, columns 2t and 2t + 1 of matrix m, or of its transpose.
template <bool kTransposed>
STMOE_DEVICE void load_matrices(uint32_t (&r)[4], const bf16* row) {
  const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

#else

STMOE_DEVICE uint32_t pack_bf16(float low, float high) {
  bf16 a, b;
  store_as(a, low);
  store_as(b, high);
  return uint32_t{a.bits} | uint32_t{b.bits} << 16;
}

// What a lane brings to the product.
struct MmaOperands {
  FragmentC* c;
  const FragmentA* a;
  const FragmentB* b;
};

inline void mma_of_warp(void* const* lanes) {
  const auto half = [](uint32_t pair, int i) {
    return as_float(i == 0 ? pair << 16 : pair & ~0xffffu);
  };
  float a[16][16], b[16][8], c[16][8] = {};
  for (int lane = 0; lane < kWarp; ++lane) {
    const auto& mine = *static_cast<const MmaOperands*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 2; ++i) {
      for (int j = 0; j < 4; ++j) a[g + j % 2 * 8][2 * t + i + j / 2 * 8] = half(mine.a->r[j], i);
      for (int j = 0; j < 2; ++j) b[2 * t + i + 8 * j][g] = half(mine.b->r[j], i);
    }
  }
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < 16; ++k)
      for (int column = 0; column < 8; ++column) c[row][column] += a[row][k] * b[k][column];
  for (int lane = 0; lane < kWarp; ++lane) {
    FragmentC& mine = *static_cast<const MmaOperands*>(lanes[lane])->c;
    for (int i = 0; i < 4; ++i) mine.r[i] += c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
}

STMOE_DEVICE void mma(FragmentC& c, const FragmentA& a, const FragmentB& b,
                      Where& where = Where::current()) {
  MmaOperands mine{&c, &a, &b};
  emu::warp_together(&mine, mma_of_warp, where);
}

struct MatrixRow {
  uint32_t* r;
  const bf16* row;
};

template <bool kTransposed>
inline void matrices_of_warp(void* const* lanes) {
  for (int lane = 0; lane < kWarp; ++lane)
    for (int m = 0; m < 4; ++m) {
      uint32_t pair = 0;
      for (int i = 0; i < 2; ++i) {
        const int g = lane / 4, column = lane % 4 * 2 + i;
        const int row = kTransposed ? column : g;
        const bf16* from = static_cast<const MatrixRow*>(lanes[m * 8 + row])->row;
        pair |= uint32_t{from[kTransposed ? g : column].bits} << (16 * i);
      }
      static_cast<const MatrixRow*>(lanes[lane])->r[m] = pair;
    }
}

template <bool kTransposed>
STMOE_DEVICE void load_matrices(uint32_t (&r)[4], const bf16* row,
                                Where& where = Where::current()) {
  STMOE_CHECK(reinterpret_cast<uintptr_t>(row) % 16 == 0, "{}:{}: a matrix row is not aligned",
              where.file_name(), where.line());
  MatrixRow mine{r, row};
  emu::warp_together(&mine, matrices_of_warp<kTransposed>, where);
}

#endif

// A from a matrix [16 rows, 16] that starts at `corner`, with rows `stride` elements apart. Rows
// are read without bank conflicts when the stride is 8 more than a multiple of 64.
STMOE_DEVICE void load_a(FragmentA& a, const bf16* corner, int stride) {
  const int lane = lane_index();
  load_matrices<false>(a.r, corner + lane % 16 * stride + lane / 16 * 8);
}
// Two neighbouring B, columns 0-7 and 8-15, of the transpose of a matrix [16 columns, 16 rows].
STMOE_DEVICE void load_b_of_columns(FragmentB (&b)[2], const bf16* corner, int stride) {
  const int lane = lane_index();
  uint32_t r[4];
  load_matrices<false>(r, corner + (lane % 8 + lane / 16 * 8) * stride + lane / 8 % 2 * 8);
  b[0] = {{r[0], r[1]}};
  b[1] = {{r[2], r[3]}};
}
// The same of a matrix [16 rows, 16 columns].
STMOE_DEVICE void load_b_of_rows(FragmentB (&b)[2], const bf16* corner, int stride) {
  const int lane = lane_index();
  uint32_t r[4];
  load_matrices<true>(r, corner + lane % 16 * stride + lane / 16 * 8);
  b[0] = {{r[0], r[1]}};
  b[1] = {{r[2], r[3]}};
}

// Sums of columns 0-7 and 8-15 as the left operand of the next product.
STMOE_DEVICE FragmentA a_of_sums(const FragmentC& low, const FragmentC& high) {
  return {{pack_bf16(low.r[0], low.r[1]), pack_bf16(low.r[2], low.r[3]),
           pack_bf16(high.r[0], high.r[1]), pack_bf16(high.r[2], high.r[3])}};
}

}  // namespace stmoe::gpu
