// SPDX-License-Identifier: Apache-2.0
#include "cuda/runtime/ring_order.h"

#include <catch2/catch.hpp>

namespace stmoe::gpu {

TEST_CASE("pieces of a ring are contiguous and used again only when they are done with",
          "[cuda][memory]") {
  RingOrder ring(1024);
  CHECK(ring.take(400) == 0u);
  const uint64_t first = ring.mark();
  CHECK(ring.take(500) == 448u);
  const uint64_t second = ring.mark();
  CHECK(!ring.take(300));  // not at the end, and the beginning is in use
  ring.done_until(first);
  CHECK(ring.take(300) == 0u);
  CHECK(!ring.take(200));
  ring.done_until(second);
  CHECK(ring.take(200) == 320u);
}

TEST_CASE("a piece of the ring's whole size fits when the ring is empty", "[cuda][memory]") {
  RingOrder ring(1024);
  CHECK(ring.take(64) == 0u);
  CHECK(!ring.take(1024));
  ring.done_until(ring.mark());
  CHECK(ring.take(1024) == 0u);
  CHECK(!ring.take(1));
  ring.done_until(ring.mark());
  CHECK(ring.take(1) == 0u);
  CHECK(!ring.take(2048));
}

}  // namespace stmoe::gpu
