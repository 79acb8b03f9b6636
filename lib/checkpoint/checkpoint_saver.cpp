// SPDX-License-Identifier: Apache-2.0
#include "lib/checkpoint/checkpoint_saver.h"

#include <atomic>
#include <exception>
#include <thread>
#include <utility>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/log.h"
#include "lib/tensor/host_copies.h"

namespace stmoe {
namespace {

bool is_on_host(const CheckpointContents& contents) {
  for (const auto* list : {&contents.weights, &contents.optimizer})
    for (const NamedTensor& one : *list)
      if (!is_host_memory(one.tensor.device())) return false;
  return true;
}

}  // namespace

struct CheckpointSaver::Save {
  Path checkpoints, saved;
  CheckpointContents contents;
  std::vector<Tensor*> travelling;  // of the contents
  std::unique_ptr<HostCopies> copies;
  std::exception_ptr error;
  std::atomic<bool> is_over{false};
  std::thread thread;

  // Splits off what is to travel; the host's own tensors are copied here, as they may change.
  void begin_copies() {
    std::vector<Tensor> sources;
    for (auto* list : {&contents.weights, &contents.optimizer})
      for (NamedTensor& one : *list)
        for (Tensor* tensor : {&one.tensor, &one.low}) {
          if (!tensor->defined()) continue;
          if (is_host_memory(tensor->device())) {
            *tensor = tensor->clone_to_heap();
            continue;
          }
          *tensor = tensor->contiguous();
          sources.push_back(*tensor);
          travelling.push_back(tensor);
        }
    copies = start_host_copies(sources);
  }

  void run() noexcept {
    try {
      for (size_t i = 0; i < travelling.size(); ++i) *travelling[i] = copies->wait(i);
      saved = save_checkpoint(checkpoints, contents);
    } catch (...) {
      error = std::current_exception();
    }
    is_over = true;
  }
};

CheckpointSaver::CheckpointSaver(std::function<void(const Path&)> saved)
    : saved_(std::move(saved)) {}

CheckpointSaver::~CheckpointSaver() {
  try {
    finish();
  } catch (const std::exception& failure) {
    log_warn("[checkpoint] not saved: {}", failure.what());
  }
}

void CheckpointSaver::start(const Path& checkpoints, CheckpointContents contents) {
  finish();
  if (is_on_host(contents)) return saved_(save_checkpoint(checkpoints, contents));
  auto save = std::make_unique<Save>();
  save->checkpoints = checkpoints;
  save->contents = std::move(contents);
  save->begin_copies();
  save_ = std::move(save);
  save_->thread = std::thread([one = save_.get()] { one->run(); });
}

void CheckpointSaver::wait_until_read() {
  if (save_) save_->copies->wait_until_read();
}

void CheckpointSaver::poll() {
  if (save_ && save_->is_over) finish();
}

void CheckpointSaver::finish() {
  if (!save_) return;
  save_->thread.join();
  const std::unique_ptr<Save> done = std::move(save_);
  if (done->error) std::rethrow_exception(done->error);
  saved_(done->saved);
}

}  // namespace stmoe
