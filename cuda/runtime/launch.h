// SPDX-License-Identifier: Apache-2.0
// Starts a kernel: on the device's current stream, or on the emulation's fibers. Arguments are
// converted to the types that the kernel declares, and counted, at compile time.
#pragma once

#include <tuple>
#include <utility>

#include "cuda/device/device.h"
#include "lib/tensor/device.h"
#if defined(__CUDACC__)
#include "cuda/runtime/stream.h"
#else
#include "cuda/emu/memory.h"
#include "cuda/emu/recording.h"
#endif

// The device that a .cu file registers its kernels for: STMOE_REGISTER_KERNELS(K, STMOE_GPU,
// {...}).
#if defined(__CUDACC__)
#define STMOE_GPU cuda
#else
#define STMOE_GPU emu
#endif

namespace stmoe::gpu {

struct Grid {
  int64_t x = 1, y = 1;
};

// Blocks of `block` threads along x for `count` of something, `each` of them a block.
inline Grid blocks_for(int64_t count, int64_t each) { return {(count + each - 1) / each, 1}; }

// `threads` a multiple of 32; a grid without blocks does nothing, and while a step is planned
// (PlanScope) nothing is launched. Pointers are to memory of the device. `static`: a program that
// has both the GPU's kernels and the emulated ones keeps two of it.
template <class... Parameters, class... Arguments>
static void launch(void (*kernel)(Parameters...), Grid grid, int threads, size_t shared_bytes,
                   Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments), "the kernel's number of arguments");
  if (grid.x <= 0 || grid.y <= 0 || is_planning()) return;
  std::tuple<Parameters...> values{static_cast<Parameters>(arguments)...};
#if defined(__CUDACC__)
  std::apply(
      [&](Parameters&... value) {
        void* addresses[] = {&value..., nullptr};
        launch_on_stream(reinterpret_cast<const void*>(kernel), grid.x, grid.y, threads,
                         shared_bytes, addresses);
      },
      values);
#else
  std::apply([](const Parameters&... value) { (emu::check_argument(value), ...); }, values);
  struct Call final : emu::Body {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> values;
    void operator()() const override { std::apply(kernel, values); }
  };
  Call call;
  call.kernel = kernel;
  call.values = values;
  const emu::LaunchShape shape{{static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), 1},
                               {static_cast<unsigned>(threads), 1, 1},
                               shared_bytes};
  emu::run_or_record([shape, call] { emu::run(shape, call); });
#endif
}

}  // namespace stmoe::gpu
