// SPDX-License-Identifier: Apache-2.0
// What a portable kernel may use of its device: the same text is compiled by nvcc and, for the
// emulation, as C++ (docs/design/cuda.md). Kernels are functions marked STMOE_KERNEL, device
// functions STMOE_DEVICE; they know their place by thread_index() and the like, wait by
// STMOE_SYNC_THREADS(), and talk within a warp by warp.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lib/tensor/dtype.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#define STMOE_KERNEL static __global__ void
#define STMOE_DEVICE static __device__ __forceinline__
// A member function that uses its object.
#define STMOE_METHOD __device__ __forceinline__
// STMOE_SHARED(float, tile, 32 * 33): shared memory of a block, without values at first.
#define STMOE_SHARED(T, name, count) __shared__ T name[count]
#define STMOE_SYNC_THREADS() __syncthreads()
// STMOE_KERNEL STMOE_BLOCKS(256, 2) name(...): at most so many threads a block; registers for so
// many blocks on a multiprocessor.
#define STMOE_BLOCKS(threads, blocks) __launch_bounds__(threads, blocks)
// Before a loop of a fixed number of rounds whose arrays are to stay in registers.
#define STMOE_UNROLL _Pragma("unroll")
#else
#include "cuda/emu/engine.h"
#define STMOE_KERNEL static void
#define STMOE_DEVICE static inline
#define STMOE_METHOD inline
#define STMOE_SHARED(T, name, count) \
  T* const name = static_cast<T*>(   \
      ::stmoe::emu::static_shared((count) * sizeof(T), std::source_location::current()))
#define STMOE_SYNC_THREADS() ::stmoe::emu::sync_threads(std::source_location::current())
#define STMOE_BLOCKS(threads, blocks)
#define STMOE_UNROLL
#endif

namespace stmoe::gpu {

inline constexpr int kWarp = 32;

#if defined(__CUDACC__)
STMOE_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
STMOE_DEVICE int block_threads() { return static_cast<int>(blockDim.x); }
STMOE_DEVICE int64_t block_index() { return blockIdx.x; }
STMOE_DEVICE int64_t block_index_y() { return blockIdx.y; }
STMOE_DEVICE int64_t num_blocks() { return gridDim.x; }
template <class T>
STMOE_DEVICE T* dynamic_smem() {
  extern __shared__ __align__(16) unsigned char stmoe_dynamic_smem[];
  return reinterpret_cast<T*>(stmoe_dynamic_smem);
}
STMOE_DEVICE float as_float(uint32_t bits) { return __uint_as_float(bits); }
STMOE_DEVICE uint32_t as_bits(float value) { return __float_as_uint(value); }
#else
STMOE_DEVICE int thread_index() { return static_cast<int>(emu::coordinates().thread.x); }
STMOE_DEVICE int block_threads() { return static_cast<int>(emu::coordinates().block_size.x); }
STMOE_DEVICE int64_t block_index() { return emu::coordinates().block.x; }
STMOE_DEVICE int64_t block_index_y() { return emu::coordinates().block.y; }
STMOE_DEVICE int64_t num_blocks() { return emu::coordinates().grid_size.x; }
template <class T>
STMOE_DEVICE T* dynamic_smem() {
  return static_cast<T*>(emu::dynamic_shared());
}
STMOE_DEVICE float as_float(uint32_t bits) { return std::bit_cast<float>(bits); }
STMOE_DEVICE uint32_t as_bits(float value) { return std::bit_cast<uint32_t>(value); }
#endif

STMOE_DEVICE int lane_index() { return thread_index() % kWarp; }
STMOE_DEVICE int warp_index() { return thread_index() / kWarp; }
STMOE_DEVICE int block_warps() { return block_threads() / kWarp; }

// Element types to and from f32; f64 stays f64.
STMOE_DEVICE float load_as(const bf16& x) { return as_float(uint32_t{x.bits} << 16); }
STMOE_DEVICE float load_as(const float& x) { return x; }
STMOE_DEVICE double load_as(const double& x) { return x; }
#if defined(__CUDACC__)
STMOE_DEVICE void store_as(bf16& to, float x) {
  to.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
// Two at once cost what one does.
STMOE_DEVICE void store_two(bf16& a, bf16& b, float x, float y) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(x, y);
  a.bits = __bfloat16_as_ushort(both.x);
  b.bits = __bfloat16_as_ushort(both.y);
}
#else
STMOE_DEVICE void store_as(bf16& to, float x) { to = bf16(x); }
STMOE_DEVICE void store_two(bf16& a, bf16& b, float x, float y) {
  a = bf16(x);
  b = bf16(y);
}
#endif
STMOE_DEVICE void store_as(float& to, float x) { to = x; }
STMOE_DEVICE void store_as(double& to, double x) { to = x; }

// Sixteen bytes at once; the address must be a multiple of 16.
template <class T>
struct alignas(16) Pack {
  static constexpr int kSize = 16 / static_cast<int>(sizeof(T));
  T values[kSize];
};

}  // namespace stmoe::gpu
