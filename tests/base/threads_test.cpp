// SPDX-License-Identifier: Apache-2.0
#include "lib/base/threads.h"

#include <atomic>
#include <cstdlib>
#include <numeric>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>
#include <sched.h>

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

namespace {

std::vector<int> cores_of_this_thread() {
  cpu_set_t set;
  REQUIRE(sched_getaffinity(0, sizeof set, &set) == 0);
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  return cores;
}

// The cores that each compute thread may run on, by chunk. Every thread waits for all the others,
// so that none takes two chunks.
std::vector<std::vector<int>> cores_of_threads() {
  std::vector<std::vector<int>> cores(static_cast<size_t>(num_threads()));
  std::atomic<int> arrived{0};
  parallel_for(num_threads(), 1, [&](int64_t begin, int64_t) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
      for (int core = 0; core < CPU_SETSIZE; ++core)
        if (CPU_ISSET(core, &set)) cores[static_cast<size_t>(begin)].push_back(core);
    ++arrived;
    while (arrived < num_threads()) sched_yield();
  });
  return cores;
}

class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Environment() { unsetenv(name_); }

 private:
  const char* name_;
};

}  // namespace

TEST_CASE("a wish for pinning that is neither yes nor no is refused", "[base][threads]") {
  const Environment perhaps("STMOE_PIN", "perhaps");
  REQUIRE_THROWS_AS(PinnedThreads(), UsageError);
}

TEST_CASE("on request, as many threads as cores are pinned to a core each, and let go again",
          "[base][threads]") {
  const Environment yes("STMOE_PIN", "yes");
  const std::vector<int> all = cores_of_this_thread();
  const WithThreads scope(static_cast<int>(all.size()));
  {
    const PinnedThreads pinned;
    REQUIRE(pinned.is_pinned() == (all.size() > 1));
    if (!pinned.is_pinned()) return;
    CHECK(cores_of_this_thread() == std::vector<int>{all[0]});
    std::vector<int> used;
    for (const std::vector<int>& cores : cores_of_threads()) {
      REQUIRE(cores.size() == 1);
      used.push_back(cores[0]);
    }
    CHECK_THAT(used, Catch::UnorderedEquals(all));
    CHECK(!PinnedThreads().is_pinned());  // once is enough
    std::vector<int> elsewhere;
    std::thread([&] {
      use_all_cores();
      elsewhere = cores_of_this_thread();
    }).join();
    CHECK(elsewhere == all);
  }
  CHECK(cores_of_this_thread() == all);
  for (const std::vector<int>& cores : cores_of_threads()) CHECK(cores == all);
}

TEST_CASE("threads are not pinned when they are fewer or more than the cores, or when not asked to",
          "[base][threads]") {
  const Environment yes("STMOE_PIN", "yes");
  const int cores = static_cast<int>(cores_of_this_thread().size());
  for (int count : {cores - 1, cores + 1}) {
    if (count < 1) continue;
    const WithThreads scope(count);
    CHECK(!PinnedThreads().is_pinned());
  }
  const WithThreads scope(cores);
  const Environment no("STMOE_PIN", "");
  CHECK(!PinnedThreads().is_pinned());
}

}  // namespace stmoe
