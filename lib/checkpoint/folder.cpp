// SPDX-License-Identifier: Apache-2.0
#include "lib/checkpoint/folder.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/log.h"
#include "lib/checkpoint/checksum_list.h"
#include "lib/checkpoint/format.h"

namespace stmoe {
namespace {

struct StepFolder {
  int64_t step = 0;
  Path path;
};

// "step-" and at least eight digits.
std::optional<int64_t> step_of(std::string_view name) {
  if (!name.starts_with("step-") || name.size() < 13) return std::nullopt;
  const char *begin = name.data() + 5, *end = name.data() + name.size();
  int64_t step = 0;
  auto [at, code] = std::from_chars(begin, end, step);
  if (code != std::errc() || at != end || step < 0 || detail::step_name(step) != name)
    return std::nullopt;
  return step;
}

std::vector<Path> entries_of(const Path& folder) {
  std::error_code code;
  std::vector<Path> entries;
  std::filesystem::directory_iterator at(folder, code), end;
  for (; !code && at != end; at.increment(code)) entries.push_back(at->path());
  if (code && code != std::errc::no_such_file_or_directory)
    throw InputError(format("{}: cannot be listed ({})", folder.string(), code.message()));
  return entries;
}

// Newest first.
std::vector<StepFolder> step_folders(const Path& checkpoints) {
  std::vector<StepFolder> found;
  for (const Path& path : entries_of(checkpoints)) {
    if (auto step = step_of(path.filename().string())) found.push_back({*step, path});
  }
  std::sort(found.begin(), found.end(),
            [](const StepFolder& a, const StepFolder& b) { return a.step > b.step; });
  return found;
}

// Why a checkpoint is not complete; empty when it is.
std::string defect_of(const Path& checkpoint) {
  try {
    for (const detail::FileChecksum& entry : detail::read_checksum_list(checkpoint)) {
      if (!std::filesystem::exists(checkpoint / entry.file))
        return format("{}: missing", (checkpoint / entry.file).string());
    }
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

bool is_there(const Path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

}  // namespace

namespace detail {

void remove_checkpoint(const Path& checkpoint) {
  try {
    Path hidden =
        checkpoint.parent_path() / format("{}{}", kRemovedPrefix, checkpoint.filename().string());
    stmoe::remove_all(hidden);
    rename_durably(checkpoint, hidden);
    stmoe::remove_all(hidden);
  } catch (const StorageError& error) {
    log_warn("[checkpoint] {}", error.what());
  }
}

void remove_leftovers(const Path& checkpoints) {
  for (const Path& path : entries_of(checkpoints)) {
    std::string name = path.filename().string();
    bool is_ours = name.starts_with(kPartialPrefix) || name.starts_with(kRemovedPrefix) ||
                   name.starts_with(format("{}.partial-", kLatestFile));
    if (!is_ours) continue;
    try {
      stmoe::remove_all(path);
      log_info("[checkpoint] removed {}, left by a process that ended early", path.string());
    } catch (const StorageError& error) {
      log_warn("[checkpoint] {}", error.what());
    }
  }
}

}  // namespace detail

std::optional<Path> newest_checkpoint(const Path& checkpoints) {
  const std::vector<StepFolder> folders = step_folders(checkpoints);
  std::string first_defect;
  for (const StepFolder& folder : folders) {
    std::string defect = defect_of(folder.path);
    if (defect.empty()) return folder.path;
    log_warn("[checkpoint] {} is not complete and passed over ({})", folder.path.string(), defect);
    if (first_defect.empty()) first_defect = defect;
  }
  if (folders.empty()) return std::nullopt;
  throw InputError(
      format("{}: no complete checkpoint among {} ({}); bring the files back, or remove "
             "the directories to start over",
             checkpoints.string(), folders.size(), first_defect));
}

Path find_checkpoint(const Path& path) {
  if (!is_there(path)) throw InputError(format("{}: there is no such directory", path.string()));
  if (path.filename() == detail::kMainFile && std::filesystem::is_regular_file(path))
    return path.has_parent_path() ? path.parent_path() : Path(".");
  if (is_there(path / detail::kMainFile) || is_there(path / detail::kChecksumFile)) return path;
  for (const Path& folder : {path / "checkpoints", path}) {
    if (!std::filesystem::is_directory(folder)) continue;
    if (auto newest = newest_checkpoint(folder)) return *newest;
  }
  throw InputError(
      format("{}: holds no checkpoint; expected a run directory, or a checkpoint directory such as "
             "RUN/checkpoints/step-00000500",
             path.string()));
}

void apply_retention(const Path& checkpoints, int64_t keep_last, int64_t keep_every) {
  if (keep_last == 0) return;
  int64_t num_seen = 0;
  for (const StepFolder& folder : step_folders(checkpoints)) {
    if (!defect_of(folder.path).empty()) continue;
    bool is_kept = num_seen++ < keep_last || (keep_every > 0 && folder.step % keep_every == 0);
    if (!is_kept) detail::remove_checkpoint(folder.path);
  }
}

}  // namespace stmoe
