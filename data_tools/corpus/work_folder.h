// SPDX-License-Identifier: Apache-2.0
// OUTPUT.work beside the output: the parts of the input files that are done, so that a run that was
// stopped or killed goes on. One run at a time may use it.
#pragma once

#include "lib/base/files.h"

namespace stmoe {

class WorkFolder {
 public:
  // Makes it or enters an existing one, and removes what an earlier run left unfinished. Throws
  // UsageError when another process is at work in it, StorageError when it cannot be made.
  explicit WorkFolder(const Path& output);
  // Unlocks. Removes the folder unless it holds finished parts.
  ~WorkFolder();
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;

  const Path& path() const { return path_; }
  size_t num_finished() const;
  // The output is in place.
  void remove();

 private:
  void lock();
  void remove_unfinished() const;

  Path path_;
  int lock_ = -1;
};

}  // namespace stmoe
