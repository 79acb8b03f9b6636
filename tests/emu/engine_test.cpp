// SPDX-License-Identifier: Apache-2.0
// The emulation itself: what it runs right, and the mistakes in kernels that it must report.
#include "cuda/emu/engine.h"

#include <cmath>
#include <cstring>
#include <set>
#include <vector>

#include <catch2/catch.hpp>

#include "cuda/device/warp.h"
#include "cuda/emu/memory.h"
#include "cuda/runtime/launch.h"
#include "lib/base/error.h"

namespace stmoe::gpu {
namespace {

STMOE_KERNEL add_one(float* x, int64_t count) {
  const int64_t i = block_index() * block_threads() + thread_index();
  if (i < count) x[i] += 1;
}

STMOE_KERNEL reverse_block(int* x) {
  STMOE_SHARED(int, tile, 64);
  tile[thread_index()] = x[block_index() * 64 + thread_index()];
  STMOE_SYNC_THREADS();
  x[block_index() * 64 + thread_index()] = tile[63 - thread_index()];
}

STMOE_KERNEL sums(const float* x, float* sum, int* lanes) {
  STMOE_SHARED(float, partial, 32);
  const float total = block_sum(x[thread_index()], partial);
  sum[thread_index()] = total;
  lanes[thread_index()] = count_bits(match_any(thread_index() % 3));
}

STMOE_KERNEL record_order(std::vector<int>* order) {
  if (thread_index() == 0) order->push_back(static_cast<int>(block_index()));
}

// Without a barrier between.
STMOE_KERNEL read_neighbour(float* y) {
  STMOE_SHARED(float, tile, 64);
  tile[thread_index()] = 1;
  const float neighbour = tile[(thread_index() + 32) % 64];
  if (thread_index() == 40) y[block_index()] = neighbour;
}

STMOE_KERNEL read_unwritten(float* y) {
  STMOE_SHARED(float, tile, 32);
  y[thread_index()] = tile[thread_index()] + dynamic_smem<float>()[thread_index()];
}

STMOE_KERNEL leave_before_barrier(int limit) {
  if (thread_index() >= limit) return;
  STMOE_SYNC_THREADS();
}

STMOE_KERNEL two_barriers() {
  if (thread_index() < 32)
    STMOE_SYNC_THREADS();
  else
    STMOE_SYNC_THREADS();
}

STMOE_KERNEL leave_before_shuffle(int* y) {
  if (thread_index() == 7) return;
  y[thread_index()] = shuffle(thread_index(), 0);
}

STMOE_KERNEL fail(int64_t index) { STMOE_CHECK(thread_index() != index, "thread {}", index); }

std::string message(void (*launch_it)()) {
  try {
    launch_it();
  } catch (const BugError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("every thread of every block runs once", "[emu]") {
  const emu::HostPointers host_pointers;
  std::vector<float> x(1000, 0.0f);
  launch(add_one, blocks_for(1000, 128), 128, 0, x.data(), 1000);
  CHECK(std::set<float>(x.begin(), x.end()) == std::set<float>{1.0f});
  launch(add_one, Grid{0, 1}, 128, 0, x.data(), 1000);  // no blocks: nothing
  CHECK(x[0] == 1);
}

TEST_CASE("shared memory belongs to the block, and barriers order it", "[emu]") {
  const emu::HostPointers host_pointers;
  std::vector<int> x(256);
  for (int i = 0; i < 256; ++i) x[static_cast<size_t>(i)] = i;
  launch(reverse_block, Grid{4, 1}, 64, 0, x.data());
  for (int i = 0; i < 256; ++i) REQUIRE(x[static_cast<size_t>(i)] == i / 64 * 64 + 63 - i % 64);
}

TEST_CASE("warps and blocks add up, with the same bits in every thread", "[emu]") {
  const emu::HostPointers host_pointers;
  std::vector<float> x(96), sum(96);
  std::vector<int> lanes(96);
  float expected = 0;
  for (size_t i = 0; i < x.size(); ++i) expected += x[i] = static_cast<float>(i) * 0.25f;
  launch(sums, Grid{}, 96, 0, x.data(), sum.data(), lanes.data());
  for (float each : sum) REQUIRE(each == expected);
  CHECK(lanes[0] == 11);  // of lanes 0..31: those that are 0 mod 3
  CHECK(lanes[2] == 10);
}

TEST_CASE("blocks run in a random order of a given seed", "[emu]") {
  const emu::HostPointers host_pointers;
  std::vector<int> order;
  launch(record_order, Grid{50, 1}, 32, 0, &order);
  CHECK(std::set<int>(order.begin(), order.end()).size() == 50);
  CHECK_FALSE(std::is_sorted(order.begin(), order.end()));
}

TEST_CASE("what hangs on the order of warps differs from block to block", "[emu]") {
  const emu::HostPointers host_pointers;
  std::vector<float> y(50);
  launch(read_neighbour, Grid{50, 1}, 64, 0, y.data());
  const auto unwritten = std::ranges::count_if(y, [](float each) { return std::isnan(each); });
  CHECK((0 < unwritten && unwritten < 50));
}

TEST_CASE("shared memory that nobody wrote is not a number", "[emu]") {
  const emu::HostPointers host_pointers;
  std::vector<float> y(32);
  launch(read_unwritten, Grid{2, 1}, 32, 32 * sizeof(float), y.data());
  for (float each : y) REQUIRE(std::isnan(each));
}

TEST_CASE("a barrier that not all threads reach is reported with its line", "[emu]") {
  const emu::HostPointers host_pointers;
  CHECK_THAT(message([] { launch(leave_before_barrier, Grid{}, 64, 0, 40); }),
             Catch::Contains("24 threads have left the kernel") &&
                 Catch::Contains("40 threads wait at") && Catch::Contains("engine_test.cpp:"));
  CHECK_THAT(message([] { launch(two_barriers, Grid{}, 64, 0); }),
             Catch::Contains("32 threads wait at"));
  CHECK_NOTHROW(launch(leave_before_barrier, Grid{}, 64, 0, 64));
}

TEST_CASE("a shuffle with a lane that has left is reported", "[emu]") {
  const emu::HostPointers host_pointers;
  static std::vector<int> y(32);
  CHECK_THAT(message([] { launch(leave_before_shuffle, Grid{}, 32, 0, y.data()); }),
             Catch::Contains("1 threads have left") && Catch::Contains("for their warp"));
}

TEST_CASE("an error inside a kernel ends the launch, and the next launch runs", "[emu]") {
  const emu::HostPointers host_pointers;
  CHECK_THAT(message([] { launch(fail, Grid{3, 1}, 64, 0, 5); }), Catch::Contains("thread 5"));
  std::vector<float> x(32, 0.0f);
  launch(add_one, Grid{}, 32, 0, x.data(), 32);
  CHECK(x[31] == 1);
  CHECK_THAT(message([] { launch(add_one, Grid{}, 33, 0, nullptr, 0); }),
             Catch::Contains("33 threads in a block"));
}

}  // namespace stmoe::gpu
