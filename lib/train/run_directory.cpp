// SPDX-License-Identifier: Apache-2.0
#include "lib/train/run_directory.h"

#include <cerrno>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "lib/base/error.h"
#include "lib/checkpoint/checkpoint.h"

namespace stmoe {

RunDirectory::RunDirectory(const Path& path) : path_(path) {
  make_directories(path_);
  const Path lock = path_ / ".lock";
  lock_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0)
    throw StorageError(format("{}: the run directory cannot be written ({}); check permissions",
                              path_.string(), errno_text(errno)));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    throw UsageError(
        format("{}: another process is training in this run directory; wait for it or choose "
               "another --output",
               path_.string()));
  }
  make_directories(checkpoints());
}

RunDirectory::~RunDirectory() { ::close(lock_); }

std::optional<Path> RunDirectory::checkpoint_to_resume(const std::string& resume) const {
  const auto own = newest_checkpoint(checkpoints());
  if (resume == "auto") return own;
  if (resume == "never") {
    if (own)
      throw UsageError(
          format("--resume never: {} already has checkpoints (newest: {}); nothing was changed; "
                 "choose another --output or resume",
                 path_.string(), own->filename().string()));
    return std::nullopt;
  }
  const Path named(resume);
  if (!std::filesystem::exists(named))
    throw InputError(format("--resume {}: there is no such directory", resume));
  if (auto newest = newest_checkpoint(named / "checkpoints")) return newest;
  if (std::filesystem::exists(named / "checkpoint.h5")) return named;
  throw InputError(
      format("--resume {}: holds no complete checkpoint; expected a run directory or "
             "a checkpoint directory",
             resume));
}

}  // namespace stmoe
