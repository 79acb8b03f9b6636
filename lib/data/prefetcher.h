// SPDX-License-Identifier: Apache-2.0
// Makes values ahead on one thread of its own: at most `depth` wait in a queue. An exception of the
// producer is thrown by take(), after the values made before it.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "lib/base/threads.h"

namespace stmoe {

template <class T>
class Prefetcher {
 public:
  Prefetcher(std::function<T()> produce, size_t depth)
      : produce_(std::move(produce)), depth_(depth), thread_([this] { run(); }) {}
  // Waits for the value being made and drops what was not taken.
  ~Prefetcher() {
    {
      std::lock_guard lock(mutex_);
      is_stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  T take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !ready_.empty() || failure_; });
    if (ready_.empty()) std::rethrow_exception(failure_);
    T value = std::move(ready_.front());
    ready_.pop_front();
    changed_.notify_all();
    return value;
  }

 private:
  void run() {
    use_all_cores();
    try {
      for (;;) {
        {
          std::unique_lock lock(mutex_);
          changed_.wait(lock, [this] { return is_stopping_ || ready_.size() < depth_; });
          if (is_stopping_) return;
        }
        T value = produce_();
        std::lock_guard lock(mutex_);
        ready_.push_back(std::move(value));
        changed_.notify_all();
      }
    } catch (...) {
      std::lock_guard lock(mutex_);
      failure_ = std::current_exception();
      changed_.notify_all();
    }
  }

  std::function<T()> produce_;
  size_t depth_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<T> ready_;
  std::exception_ptr failure_;
  bool is_stopping_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace stmoe
