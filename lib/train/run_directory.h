// SPDX-License-Identifier: Apache-2.0
// The directory of a run (contract.md): recipe.yaml, log.txt, metrics.jsonl, tensorboard/,
// checkpoints/. One process writes to it at a time.
#pragma once

#include <optional>
#include <string>

#include "lib/base/files.h"

namespace stmoe {

class RunDirectory {
 public:
  // Makes the directory and takes its lock. Throws StorageError when it cannot be written,
  // UsageError when another process has it.
  explicit RunDirectory(const Path& path);
  ~RunDirectory();
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;

  const Path& path() const { return path_; }
  Path checkpoints() const { return path_ / "checkpoints"; }

  // The checkpoint that --resume chooses: "auto" the newest here, if any; "never" none, and
  // UsageError when there is one; else that of the named run or checkpoint directory (InputError
  // when there is none).
  std::optional<Path> checkpoint_to_resume(const std::string& resume) const;

 private:
  Path path_;
  int lock_ = -1;
};

}  // namespace stmoe
