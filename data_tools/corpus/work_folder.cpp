// SPDX-License-Identifier: Apache-2.0
#include "data_tools/corpus/work_folder.h"

#include <cerrno>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "lib/base/error.h"
#include "lib/base/log.h"

namespace stmoe {
namespace {

Path folder_of(const Path& output) {
  Path folder = output;
  folder += ".work";
  return folder;
}

}  // namespace

WorkFolder::WorkFolder(const Path& output) : path_(folder_of(output)) {
  make_directories(path_);
  lock();
  remove_unfinished();
}

void WorkFolder::lock() {
  const Path file = path_ / "lock";
  lock_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0)
    throw StorageError(format("{}: cannot be written ({}); check permissions and free space",
                              file.string(), errno_text(errno)));
  if (::flock(lock_, LOCK_EX | LOCK_NB) == 0) return;
  ::close(lock_);
  throw UsageError(
      format("{}: another stmoe-data is writing this corpus; wait for it, or choose "
             "another --output",
             path_.string()));
}

WorkFolder::~WorkFolder() {
  if (lock_ < 0) return;
  std::error_code ignored;
  if (num_finished() == 0)
    std::filesystem::remove_all(path_, ignored);
  else
    log_info("[data] {} finished files are kept in {}; run the same command again to go on",
             num_finished(), path_.string());
  ::close(lock_);
}

size_t WorkFolder::num_finished() const {
  size_t count = 0;
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator(path_, code))
    count += entry.path().extension() == ".json";
  return count;
}

void WorkFolder::remove_unfinished() const {
  std::vector<Path> unfinished;
  for (const auto& entry : std::filesystem::directory_iterator(path_)) {
    Path done = entry.path();
    const bool is_tokens = done.extension() == ".tokens";
    done.replace_extension(".json");
    const bool is_kept = entry.path().filename() == "lock" || entry.path().extension() == ".json" ||
                         (is_tokens && std::filesystem::exists(done));
    if (!is_kept) unfinished.push_back(entry.path());
  }
  for (const Path& path : unfinished) stmoe::remove_all(path);
}

void WorkFolder::remove() {
  stmoe::remove_all(path_);
  ::close(lock_);
  lock_ = -1;
}

}  // namespace stmoe
