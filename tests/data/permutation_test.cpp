// SPDX-License-Identifier: Apache-2.0
#include "lib/data/permutation.h"

#include <set>

#include "tests/data/support.h"

using namespace stmoe;

TEST_CASE("every element appears exactly once, whatever the count", "[data][permutation]") {
  for (uint64_t count : {1, 2, 3, 4, 5, 7, 16, 17, 100, 127, 128, 129, 1000, 4097}) {
    const Permutation order(count, RandomKey{count});
    std::vector<int> seen(count, 0);
    for (uint64_t i = 0; i < count; ++i) ++seen.at(order(i));
    CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
  }
}

TEST_CASE("orders look random and differ between keys", "[data][permutation]") {
  const uint64_t count = 1000;
  const Permutation a(count, RandomKey{1}), b(count, RandomKey{2});
  int same = 0, fixed = 0, rising = 0;
  for (uint64_t i = 0; i < count; ++i) {
    same += a(i) == b(i);
    fixed += a(i) == i;
    if (i > 0) rising += a(i) > a(i - 1);
  }
  // Expected 1, 1 and 499.5 (standard deviations 1, 1 and 9.1).
  CHECK(same < 10);
  CHECK(fixed < 10);
  CHECK(rising > 440);
  CHECK(rising < 560);
}

TEST_CASE("the first element of a random order is uniform", "[data][permutation]") {
  const int draws = 16000;
  std::vector<int> seen(8, 0);
  for (int i = 0; i < draws; ++i) ++seen[Permutation(8, RandomKey{9}.fold(i))(0)];
  for (int count : seen) CHECK(std::abs(count - draws / 8) < 200);  // standard deviation 42
}

TEST_CASE("a huge range needs no memory", "[data][permutation]") {
  const uint64_t count = uint64_t{1} << 40;
  const Permutation order(count, RandomKey{5});
  std::set<uint64_t> seen;
  for (uint64_t i = 0; i < 1000; ++i) seen.insert(order(i * 1000003));
  CHECK(seen.size() == 1000);
  CHECK(*seen.rbegin() < count);
  CHECK_THROWS_AS(order(count), BugError);
}
