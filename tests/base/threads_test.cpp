// SPDX-License-Identifier: Apache-2.0
#include "lib/base/threads.h"

#include <atomic>
#include <numeric>
#include <vector>

#include <catch2/catch.hpp>

#include "lib/base/error.h"

namespace stmoe {
namespace {

class WithThreads {
 public:
  explicit WithThreads(int count) : before_(num_threads()) { set_num_threads(count); }
  ~WithThreads() { set_num_threads(before_); }

 private:
  int before_;
};

}  // namespace

TEST_CASE("chunks cover every index once, with borders that depend on the sizes only",
          "[base][threads]") {
  for (int threads : {1, 2, 5}) {
    const WithThreads scope(threads);
    for (int64_t count : {0, 1, 6, 7, 8, 1000}) {
      std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
      parallel_for(count, 7, [&](int64_t begin, int64_t end, int64_t chunk) {
        if (begin != 7 * chunk || end != std::min(count, begin + 7)) throw BugError("borders");
        for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
      });
      for (const auto& visit : visits) CHECK(visit == 1);
    }
  }
  CHECK(num_chunks(0, 7) == 0);
  CHECK(num_chunks(7, 7) == 1);
  CHECK(num_chunks(8, 7) == 2);
}

TEST_CASE("an exception in one chunk reaches the caller after the others have run",
          "[base][threads]") {
  for (int threads : {1, 3}) {
    const WithThreads scope(threads);
    std::atomic<int> runs{0};
    auto body = [&](int64_t begin, int64_t) {
      ++runs;
      if (begin == 5) throw InputError("chunk 5");
    };
    CHECK_THROWS_WITH(parallel_for(20, 1, body), "chunk 5");
    if (threads > 1) CHECK(runs == 20);
    parallel_for(20, 1, [&](int64_t, int64_t) { ++runs; });  // and the pool still works
  }
}

TEST_CASE("a nested loop runs on the calling thread", "[base][threads]") {
  const WithThreads scope(3);
  std::vector<int64_t> sums(10);
  parallel_for(10, 1, [&](int64_t outer, int64_t) {
    parallel_for(100, 10, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) sums[static_cast<size_t>(outer)] += i;  // no race
    });
  });
  CHECK(sums == std::vector<int64_t>(10, 4950));
}

TEST_CASE("a sum over chunks has the same bits with any number of threads", "[base][threads]") {
  std::vector<float> values(100000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = 1.0f / static_cast<float>(i + 1);
  auto sum = [&](int threads) {
    const WithThreads scope(threads);
    std::vector<float> partial(100);
    parallel_for(100000, 1000, [&](int64_t begin, int64_t end, int64_t chunk) {
      partial[static_cast<size_t>(chunk)] =
          std::accumulate(values.begin() + begin, values.begin() + end, 0.0f);
    });
    return std::accumulate(partial.begin(), partial.end(), 0.0f);
  };
  CHECK(sum(1) == sum(2));
  CHECK(sum(1) == sum(5));
}

TEST_CASE("thread counts below one are refused", "[base][threads]") {
  CHECK_THROWS_AS(set_num_threads(0), BugError);
  CHECK(num_threads() >= 1);
}

}  // namespace stmoe
