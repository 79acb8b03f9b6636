// SPDX-License-Identifier: Apache-2.0
// Saves checkpoints of a device's tensors while training goes on: the tensors travel to the host
// beside the next step's work, a thread writes them from there. Takes the host's memory for one
// copy of them. What is on the host already is saved at once: a copy of it would be memory twice.
#pragma once

#include <functional>
#include <memory>

#include "lib/checkpoint/checkpoint.h"

namespace stmoe {

class CheckpointSaver {
 public:
  // Called with the path when a checkpoint is complete, by the thread that calls start, poll or
  // finish.
  explicit CheckpointSaver(std::function<void(const Path&)> saved);
  // Waits for a save that is under way; a failure is logged.
  ~CheckpointSaver();
  CheckpointSaver(const CheckpointSaver&) = delete;
  CheckpointSaver& operator=(const CheckpointSaver&) = delete;

  // Saves the contents as they are now, after an earlier save is complete.
  void start(const Path& checkpoints, CheckpointContents contents);
  // Must come before a tensor of the contents is written again.
  void wait_until_read();
  // Tells of a checkpoint that is complete, without waiting for it. Throws what made saving fail.
  void poll();
  // The same, waiting for it.
  void finish();

 private:
  struct Save;
  std::function<void(const Path&)> saved_;
  std::unique_ptr<Save> save_;
};

}  // namespace stmoe
