// SPDX-License-Identifier: Apache-2.0
// A worker that has nothing to do spins for some microseconds and then sleeps, so a run beside
// other programs is not slowed by threads that burn the cores they wait on (OpenMP's default waits
// cost a factor of 20 on a loaded machine). Chunks are claimed one at a time; the caller works too
// and waits only for chunks that another thread has begun.
#include "lib/base/threads.h"

#include <atomic>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <pthread.h>
#include <sched.h>

#include "lib/base/error.h"
#include "lib/base/format.h"

namespace stmoe {
namespace {

constexpr int kSpins = 2000;

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// The cores that the process was bound to before any thread was pinned.
const cpu_set_t& process_cores() {
  static const cpu_set_t all = [] {
    cpu_set_t set;
    if (::sched_getaffinity(0, sizeof set, &set) != 0) CPU_ZERO(&set);
    return set;
  }();
  return all;
}

// Cores' worth of time that a control group allows, 0 without a limit.
int allowed_by_quota() {
  double quota = 0, period = 0;
  std::ifstream limit("/sys/fs/cgroup/cpu.max");  // "200000 100000", or "max 100000"
  if (!(limit >> quota >> period)) {
    std::ifstream old_quota("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
        old_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    if (!(old_quota >> quota) || !(old_period >> period)) return 0;
  }
  return quota > 0 && period > 0 ? std::max(1, static_cast<int>(quota / period + 0.5)) : 0;
}

int usable_cores() {
  int cores = CPU_COUNT(&process_cores());
  if (cores == 0) cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const int quota = allowed_by_quota();
  return quota > 0 ? std::min(cores, quota) : cores;
}

bool run_only_on(const cpu_set_t& cores) {
  return ::pthread_setaffinity_np(::pthread_self(), sizeof cores, &cores) == 0;
}

// The index-th core of the process.
cpu_set_t one_core(int index) {
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(core, &process_cores()) && index-- == 0) CPU_SET(core, &one);
  return one;
}

thread_local bool inside_a_chunk = false;

struct Job {
  int64_t count, chunk_size, chunks;
  detail::ChunkFunction function;
  void* context;
};

class Pool {
 public:
  Pool(int num_threads, bool is_pinned) {
    for (int i = 1; i < num_threads; ++i)
      workers_.emplace_back([this, i, is_pinned] {
        if (is_pinned) run_only_on(one_core(i));
        work();
      });
  }
  ~Pool() {
    is_ending_.store(true, std::memory_order_relaxed);
    wake();
    for (std::thread& worker : workers_) worker.join();
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // One caller at a time.
  void run(const Job& job) {
    job_ = job;
    failure_ = nullptr;
    unfinished_.store(static_cast<int>(job.chunks), std::memory_order_relaxed);
    const uint64_t round = (unclaimed_.load(std::memory_order_relaxed) >> 32) + 1;
    unclaimed_.store(round << 32 | static_cast<uint64_t>(job.chunks), std::memory_order_release);
    wake();
    while (run_one_chunk()) {
    }
    for (int spins = 0; unfinished_.load(std::memory_order_acquire) > 0; ++spins) {
      if (spins < kSpins)
        pause_briefly();
      else if (const int left = unfinished_.load(std::memory_order_acquire); left > 0)
        unfinished_.wait(left, std::memory_order_acquire);
    }
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

 private:
  void wake() {
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
  }

  void work() {
    int seen = 0;
    for (;;) {
      for (int spins = 0; epoch_.load(std::memory_order_acquire) == seen; ++spins) {
        if (spins < kSpins)
          pause_briefly();
        else
          epoch_.wait(seen, std::memory_order_acquire);
      }
      seen = epoch_.load(std::memory_order_acquire);
      if (is_ending_.load(std::memory_order_relaxed)) return;
      while (run_one_chunk()) {
      }
    }
  }

  // Claims a chunk of the present job and runs it; false when none is left. The job cannot change
  // between the claim and the end of the chunk, because the caller waits for every claimed chunk.
  bool run_one_chunk() {
    uint64_t state = unclaimed_.load(std::memory_order_acquire);
    do {
      if ((state & 0xFFFFFFFFu) == 0) return false;
    } while (!unclaimed_.compare_exchange_weak(state, state - 1, std::memory_order_acq_rel));
    const int64_t chunk = job_.chunks - static_cast<int64_t>(state & 0xFFFFFFFFu);
    const int64_t begin = chunk * job_.chunk_size;
    inside_a_chunk = true;
    try {
      job_.function(job_.context, begin, std::min(job_.count, begin + job_.chunk_size), chunk);
    } catch (...) {
      std::lock_guard lock(failure_mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
    inside_a_chunk = false;
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_one();
    return true;
  }

  Job job_{};
  std::atomic<uint64_t> unclaimed_{0};  // round of work << 32 | chunks not yet claimed
  std::atomic<int> unfinished_{0};
  std::atomic<int> epoch_{0};
  std::atomic<bool> is_ending_{false};
  std::exception_ptr failure_;
  std::mutex failure_mutex_;
  std::vector<std::thread> workers_;
};

// The pool and who uses it. A forked child has no workers: it forgets the pool and makes its own.
struct PoolState {
  std::atomic<int> num_threads{0};
  std::mutex in_use;
  std::unique_ptr<Pool> pool;
  int pool_threads = 0;
  bool is_pinned = false;

  PoolState() {
    pthread_atfork(nullptr, nullptr, [] {
      (void)instance().pool.release();
      if (std::exchange(instance().is_pinned, false)) use_all_cores();
    });
  }
  static PoolState& instance() {
    static PoolState state;
    return state;
  }
};

}  // namespace

void set_num_threads(int count) {
  STMOE_CHECK(count >= 1, "threads: {}", count);
  PoolState::instance().num_threads = count;
}

int num_threads() {
  PoolState& state = PoolState::instance();
  if (state.num_threads == 0) state.num_threads = usable_cores();
  return state.num_threads;
}

PinnedThreads::PinnedThreads() {
  const char* variable = std::getenv("STMOE_PIN");
  const std::string_view wish = variable ? variable : "";
  if (!wish.empty() && wish != "yes" && wish != "no")
    throw UsageError(format("STMOE_PIN: is '{}', expected yes or no", wish));
  PoolState& state = PoolState::instance();
  const int threads = num_threads();
  if (wish != "yes" || state.is_pinned || threads == 1 || threads != CPU_COUNT(&process_cores()))
    return;
  state.pool.reset();  // the next one starts on its cores
  state.is_pinned = is_pinned_ = run_only_on(one_core(0));
}

PinnedThreads::~PinnedThreads() {
  if (!is_pinned_) return;
  PoolState& state = PoolState::instance();
  state.pool.reset();
  state.is_pinned = false;
  use_all_cores();
}

void use_all_cores() {
  if (CPU_COUNT(&process_cores()) > 0) run_only_on(process_cores());
}

namespace detail {

void parallel_chunks(int64_t count, int64_t chunk_size, ChunkFunction function, void* context) {
  STMOE_CHECK(count >= 0 && chunk_size >= 1);
  const Job job{count, chunk_size, num_chunks(count, chunk_size), function, context};
  PoolState& state = PoolState::instance();
  const int threads = num_threads();
  std::unique_lock lock(state.in_use, std::defer_lock);
  const bool alone = job.chunks <= 1 || threads == 1 || inside_a_chunk || job.chunks > INT32_MAX;
  if (alone || !lock.try_lock()) {
    for (int64_t chunk = 0; chunk < job.chunks; ++chunk) {
      const int64_t begin = chunk * chunk_size;
      function(context, begin, std::min(count, begin + chunk_size), chunk);
    }
    return;
  }
  if (!state.pool || state.pool_threads != threads) {
    state.pool.reset();
    state.pool = std::make_unique<Pool>(threads, state.is_pinned);
    state.pool_threads = threads;
  }
  state.pool->run(job);
}

}  // namespace detail
}  // namespace stmoe
