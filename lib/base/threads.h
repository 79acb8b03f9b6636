// SPDX-License-Identifier: Apache-2.0
// The one pool of compute threads. Work is split into chunks whose borders depend on the sizes
// only, never on the number of threads, so that a reduction over per-chunk partial results has the
// same bits with any number of threads. A second thread that calls while the pool is busy does its
// work alone.
#pragma once

#include <cstdint>
#include <type_traits>

namespace stmoe {

// Number of compute threads; the default is the cores that this process may use: those it is bound
// to (mpirun, srun, taskset, a container's cpuset), or fewer where a control group limits its time.
// Not while a parallel_for runs.
void set_num_threads(int count);
int num_threads();

// On request (the environment variable STMOE_PIN=yes), keeps every compute thread, the calling one
// included, on a core of its own while this lives, so that none moves away from its caches. Only
// when there are as many threads as cores to run on: with fewer, several processes would meet on
// the first cores; with more, they share in any case. Not by default, because on a machine that
// other programs use too, a thread that may not move waits for its core while another one is idle;
// threads stay within the cores that mpirun, srun or taskset give the process in any case. Not
// while a parallel_for runs.
class PinnedThreads {
 public:
  PinnedThreads();
  ~PinnedThreads();
  PinnedThreads(const PinnedThreads&) = delete;
  PinnedThreads& operator=(const PinnedThreads&) = delete;
  bool is_pinned() const { return is_pinned_; }

 private:
  bool is_pinned_ = false;
};

// A thread starts where its maker is pinned: one that does not compute calls this first, to run
// wherever there is room.
void use_all_cores();

namespace detail {
using ChunkFunction = void (*)(void* context, int64_t begin, int64_t end, int64_t chunk);
void parallel_chunks(int64_t count, int64_t chunk_size, ChunkFunction function, void* context);
}  // namespace detail

inline int64_t num_chunks(int64_t count, int64_t chunk_size) {
  return (count + chunk_size - 1) / chunk_size;
}

// Calls body(begin, end) or body(begin, end, chunk) for chunks of `chunk_size` that cover [0,
// count), on all threads. The first exception thrown by a body is thrown again here. Nested calls
// run on the calling thread.
template <class Body>
void parallel_for(int64_t count, int64_t chunk_size, Body&& body) {
  using BodyType = std::remove_reference_t<Body>;
  detail::parallel_chunks(
      count, chunk_size,
      [](void* context, int64_t begin, int64_t end, int64_t chunk) {
        BodyType& call = *static_cast<BodyType*>(context);
        if constexpr (std::is_invocable_v<BodyType&, int64_t, int64_t, int64_t>)
          call(begin, end, chunk);
        else
          call(begin, end);
      },
      const_cast<std::remove_const_t<BodyType>*>(&body));
}

}  // namespace stmoe
