// SPDX-License-Identifier: Apache-2.0
#include "lib/base/threads.h"

#include <atomic>
#include <exception>
#include <mutex>

#include <omp.h>
#include <sched.h>

#include "lib/base/error.h"

// The OpenMP runtime is not instrumented for the thread sanitizer: tell it that entering and
// leaving a parallel region orders memory.
#if defined(__SANITIZE_THREAD__)
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
#define STMOE_TSAN_ACQUIRE(address) __tsan_acquire(address)
#define STMOE_TSAN_RELEASE(address) __tsan_release(address)
#else
#define STMOE_TSAN_ACQUIRE(address) static_cast<void>(address)
#define STMOE_TSAN_RELEASE(address) static_cast<void>(address)
#endif

namespace stmoe {
namespace {

int bound_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, omp_get_num_procs());
}

std::atomic<int> thread_count{0};

}  // namespace

void set_num_threads(int count) {
  STMOE_CHECK(count >= 1, "threads: {}", count);
  thread_count = count;
  omp_set_num_threads(count);
  omp_set_dynamic(0);
  omp_set_max_active_levels(1);
}

int num_threads() {
  if (thread_count == 0) set_num_threads(bound_cores());
  return thread_count;
}

namespace detail {

void parallel_chunks(int64_t count, int64_t chunk_size, ChunkFunction function, void* context) {
  STMOE_CHECK(count >= 0 && chunk_size >= 1);
  const int64_t chunks = num_chunks(count, chunk_size);
  auto run = [&](int64_t chunk) {
    const int64_t begin = chunk * chunk_size;
    function(context, begin, std::min(count, begin + chunk_size), chunk);
  };
  if (chunks <= 1 || num_threads() == 1 || omp_in_parallel()) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) run(chunk);
    return;
  }
  std::exception_ptr failure;
  std::mutex failure_mutex;
  char order[2];
  STMOE_TSAN_RELEASE(&order[0]);
#pragma omp parallel num_threads(num_threads())
  {
    STMOE_TSAN_ACQUIRE(&order[0]);
#pragma omp for schedule(dynamic, 1) nowait
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      try {
        run(chunk);
      } catch (...) {
        std::lock_guard lock(failure_mutex);
        if (!failure) failure = std::current_exception();
      }
    }
    STMOE_TSAN_RELEASE(&order[1]);
  }
  STMOE_TSAN_ACQUIRE(&order[1]);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace detail
}  // namespace stmoe
