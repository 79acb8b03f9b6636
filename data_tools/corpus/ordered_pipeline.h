// SPDX-License-Identifier: Apache-2.0
// One thread reads, several work, the caller takes the results in the order of reading, so that
// what comes out does not depend on the number of threads. At most a few items per worker are under
// way.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace stmoe {

template <class In, class Out>
class OrderedPipeline {
 public:
  // `produce` is called on one thread until it gives nothing; `work` on `num_workers` threads at
  // once.
  OrderedPipeline(std::function<std::optional<In>()> produce, std::function<Out(In)> work,
                  int num_workers)
      : produce_(std::move(produce)),
        work_(std::move(work)),
        limit_(4 * static_cast<uint64_t>(num_workers) + 4) {
    threads_.emplace_back([this] { read(); });
    for (int i = 0; i < num_workers; ++i) threads_.emplace_back([this] { run_worker(); });
  }
  // Drops what was not taken, after the items being worked on.
  ~OrderedPipeline() {
    {
      std::lock_guard lock(mutex_);
      is_stopping_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  OrderedPipeline(const OrderedPipeline&) = delete;
  OrderedPipeline& operator=(const OrderedPipeline&) = delete;

  // The next result; nothing at the end. What producing or working on it threw is thrown here, in
  // its place.
  std::optional<Out> next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] {
      return results_.contains(num_taken_) || (is_read_ && num_taken_ == num_read_);
    });
    auto found = results_.find(num_taken_);
    if (found == results_.end()) {
      if (read_failure_) std::rethrow_exception(read_failure_);
      return std::nullopt;
    }
    Result result = std::move(found->second);
    results_.erase(found);
    ++num_taken_;
    changed_.notify_all();
    lock.unlock();
    if (result.failure) std::rethrow_exception(result.failure);
    return std::move(result.value);
  }

 private:
  struct Result {
    std::optional<Out> value;
    std::exception_ptr failure;
  };
  struct Item {
    uint64_t number;
    In value;
  };

  void read() {
    std::exception_ptr failure;
    try {
      while (wait_for_room()) {
        std::optional<In> item = produce_();
        if (!item) break;
        std::lock_guard lock(mutex_);
        waiting_.push_back({num_read_++, std::move(*item)});
        changed_.notify_all();
      }
    } catch (...) {
      failure = std::current_exception();
    }
    std::lock_guard lock(mutex_);
    read_failure_ = failure;
    is_read_ = true;
    changed_.notify_all();
  }

  bool wait_for_room() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return is_stopping_ || num_read_ - num_taken_ < limit_; });
    return !is_stopping_;
  }

  void run_worker() {
    while (std::optional<Item> item = take_item()) {
      Result result;
      try {
        result.value = work_(std::move(item->value));
      } catch (...) {
        result.failure = std::current_exception();
      }
      std::lock_guard lock(mutex_);
      results_.emplace(item->number, std::move(result));
      changed_.notify_all();
    }
  }

  std::optional<Item> take_item() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return is_stopping_ || is_read_ || !waiting_.empty(); });
    if (is_stopping_ || waiting_.empty()) return std::nullopt;
    Item item = std::move(waiting_.front());
    waiting_.pop_front();
    return item;
  }

  std::function<std::optional<In>()> produce_;
  std::function<Out(In)> work_;
  uint64_t limit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> waiting_;
  std::map<uint64_t, Result> results_;
  uint64_t num_read_ = 0, num_taken_ = 0;
  bool is_read_ = false, is_stopping_ = false;
  std::exception_ptr read_failure_;
  std::vector<std::thread> threads_;
};

}  // namespace stmoe
