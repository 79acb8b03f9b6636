// SPDX-License-Identifier: Apache-2.0
// Runs a kernel on the host: one fiber for each CUDA thread, one block after the other, on the
// calling thread. Shows wrong indices, reads of shared memory that nobody wrote, barriers that not
// all threads reach, shuffles with lanes that have left, and results that hang on the order of
// blocks or of a block's threads: blocks run in a random order of a given seed, the threads of each
// from the first to the last or from the last to the first, and shared memory is filled with 0xff
// before each of them. Other races between warps it does not show, nor what tensor cores and
// asynchronous copies do.
//
// A kernel's error ends the launch with a BugError that names the kernel's line.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <source_location>

namespace stmoe::emu {

inline constexpr unsigned kWarpSize = 32;

struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};

struct LaunchShape {
  Index3 grid = {1, 1, 1}, block = {1, 1, 1};
  size_t shared_bytes = 0;  // dynamic
};

// Where the running fiber is.
struct Coordinates {
  Index3 thread, block, block_size, grid_size;
};

// A kernel with its arguments.
class Body {
 public:
  virtual ~Body() = default;
  virtual void operator()() const = 0;
};

// Runs every thread of every block. The block's size is a multiple of a warp. Launches do not nest.
void run(const LaunchShape& shape, const Body& body, uint64_t seed = 1);

// What follows is called by kernels, inside run().

const Coordinates& coordinates();
// Waits for all threads of the block; an error when one waits elsewhere or has left.
void sync_threads(const std::source_location& where);
// The values that the lanes of the caller's warp brought to this place; all of them must come.
std::array<uint64_t, kWarpSize> gather_warp(uint64_t value, const std::source_location& where);
// Calls together(lanes) once for the caller's warp when all its lanes have come here; lanes[i] is
// what lane i brought. For instructions that a warp executes as one on what all its lanes hold.
void warp_together(void* mine, void (*together)(void* const* lanes),
                   const std::source_location& where);
// The launch's dynamic shared memory.
void* dynamic_shared();
// Static shared memory of one declaration, the same for all threads of a block.
void* static_shared(size_t bytes, const std::source_location& where);

}  // namespace stmoe::emu
