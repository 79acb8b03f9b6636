// SPDX-License-Identifier: Apache-2.0
// Order of writing: shard, checkpoint.h5, the list of hashes, each flushed to disk; the directory
// flushed; the rename that makes it a checkpoint; `latest`. A failure before the rename removes the
// hidden directory.
#include <cstdio>

#include <fcntl.h>
#include <unistd.h>

#include "lib/base/error.h"
#include "lib/base/log.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/checkpoint/checksum_list.h"
#include "lib/checkpoint/format.h"
#include "lib/hdf5/file.h"
#include "lib/tensor/weight_tensor.h"

namespace stmoe {
namespace {

constexpr int64_t kNumShards = 1;  // one process writes

struct StoredTensor {
  std::string path;  // "weights/..."
  WeightTensor tensor;
  ElementType type;
  std::vector<int64_t> shape;
  // A single value or nothing at all cannot be a virtual dataset: it is stored in checkpoint.h5
  // itself.
  bool is_sharded() const { return !shape.empty() && tensor.value.numel() > 0; }
  // A device's tensors come to the host one after the other.
  Tensor on_host() const { return tensor.on_host(); }
  int64_t bytes() const {
    return tensor.value.numel() * static_cast<int64_t>(size_of(tensor.dtype()));
  }
};

std::vector<StoredTensor> stored_tensors(const CheckpointContents& contents) {
  std::vector<StoredTensor> result;
  auto add = [&](const char* group, const std::vector<NamedTensor>& tensors) {
    for (const NamedTensor& named : tensors) {
      WeightTensor tensor = WeightTensor::of(named);
      tensor.value = tensor.value.contiguous();
      std::span<const int64_t> dims = tensor.value.shape().dims();
      result.push_back({format("{}/{}", group, named.name),
                        tensor,
                        parse_element_type(name_of(tensor.dtype())),
                        {dims.begin(), dims.end()}});
    }
  };
  add("weights", contents.weights);
  add("optimizer", contents.optimizer);
  return result;
}

int64_t total_bytes(const std::vector<StoredTensor>& tensors) {
  int64_t bytes = 0;
  for (const StoredTensor& stored : tensors) bytes += stored.bytes();
  return bytes;
}

void check_room(const Path& checkpoints, int64_t step, const std::vector<StoredTensor>& tensors) {
  // Chunk borders, checksums and object headers come on top of the tensors: a percent and a few KB
  // each.
  auto bytes = static_cast<double>(total_bytes(tensors));
  double needed = bytes * 1.01 + 6e3 * static_cast<double>(tensors.size()) + 1e6;
  auto available = static_cast<double>(free_bytes(checkpoints));
  if (needed <= available) return;
  throw StorageError(
      format("{}: no room for the checkpoint of step {}: it needs {:.1f} MB, {:.1f} MB "
             "are free; make room or lower checkpoint.keep_last",
             checkpoints.string(), step, needed / 1e6, available / 1e6));
}

void write_shard(const Path& path, const CheckpointContents& contents,
                 const std::vector<StoredTensor>& tensors) {
  Hdf5File file = Hdf5File::create(path);
  file.set_attribute("format", detail::kShardFormat);
  file.set_attribute("format_version", detail::kFormatVersion);
  file.set_attribute("step", contents.step);
  for (const StoredTensor& stored : tensors) {
    if (stored.is_sharded())
      file.create_dataset(stored.path, stored.type, stored.shape).write(stored.on_host());
  }
  file.close();
  sync_to_disk(path);
}

void write_main_file(const Path& path, const CheckpointContents& contents,
                     const std::vector<StoredTensor>& tensors, int64_t shard_bytes) {
  Hdf5File file = Hdf5File::create(path);
  file.set_attribute("format", detail::kMainFormat);
  file.set_attribute("format_version", detail::kFormatVersion);
  file.set_attribute("library_version", STMOE_VERSION);
  file.set_attribute("step", contents.step);
  file.set_attribute("vocabulary_hash", contents.vocabulary_hash);
  file.set_attribute("num_tensors", tensors.size());
  file.set_attribute("tensor_bytes", total_bytes(tensors));
  file.write_text("recipe", contents.recipe_yaml);
  file.write_text("state", contents.state_json);
  file.create_dataset("shard_bytes", ElementType::i64, {kNumShards})
      .write(std::vector{shard_bytes});
  file.create_group("weights");
  file.create_group("optimizer");
  for (const StoredTensor& stored : tensors) {
    if (!stored.is_sharded()) {
      file.create_dataset(stored.path, stored.type, stored.shape).write(stored.on_host());
      continue;
    }
    Hdf5Box whole{std::vector<int64_t>(stored.shape.size(), 0), stored.shape};
    file.create_virtual(stored.path, stored.type, stored.shape,
                        {{detail::shard_name(0, kNumShards), stored.path, whole, whole}});
  }
  file.close();
  sync_to_disk(path);
}

void write_everything(const Path& folder, const CheckpointContents& contents,
                      const std::vector<StoredTensor>& tensors) {
  make_directories(folder);
  const std::string shard = detail::shard_name(0, kNumShards);
  write_shard(folder / shard, contents, tensors);
  auto shard_bytes = static_cast<int64_t>(std::filesystem::file_size(folder / shard));
  write_main_file(folder / detail::kMainFile, contents, tensors, shard_bytes);
  std::vector<detail::FileChecksum> list;
  for (const std::string& file : {std::string(detail::kMainFile), shard})
    list.push_back({file, hash128_of_file(folder / file).text()});
  write_file_atomically(folder / detail::kChecksumFile, detail::checksum_text(list));
  sync_to_disk(folder);
}

// Renames `partial` to `final_path`; one that is there already is exchanged in one step, then
// removed.
void put_in_place(const Path& partial, const Path& final_path) {
  bool is_there = std::filesystem::exists(final_path);
  if (is_there &&
      ::renameat2(AT_FDCWD, partial.c_str(), AT_FDCWD, final_path.c_str(), RENAME_EXCHANGE) == 0) {
    sync_to_disk(final_path.parent_path());
    stmoe::remove_all(partial);
    return;
  }
  if (is_there) detail::remove_checkpoint(final_path);
  rename_durably(partial, final_path);
}

std::string kept_text(const Path& checkpoints) {
  try {
    auto newest = newest_checkpoint(checkpoints);
    if (newest) return format("; the last complete checkpoint, {}, is kept", newest->string());
  } catch (const Error&) {
    // What is wrong with old checkpoints is not the news here.
  }
  return "; there is no complete checkpoint yet";
}

void remove_quietly(const Path& path) {
  std::error_code ignored;
  std::filesystem::remove_all(path, ignored);
}

}  // namespace

Path save_checkpoint(const Path& checkpoints, const CheckpointContents& contents) {
  const std::string name = detail::step_name(contents.step);
  const Path partial = checkpoints / format("{}{}", detail::kPartialPrefix, name),
             final_path = checkpoints / name;
  const std::vector<StoredTensor> tensors = stored_tensors(contents);
  try {
    make_directories(checkpoints);
    detail::remove_leftovers(checkpoints);
    check_room(checkpoints, contents.step, tensors);
    write_everything(partial, contents, tensors);
    put_in_place(partial, final_path);
    write_file_atomically(checkpoints / detail::kLatestFile, name + "\n");
  } catch (const StorageError& error) {
    remove_quietly(partial);
    throw StorageError(error.what() + kept_text(checkpoints));
  } catch (...) {
    remove_quietly(partial);
    throw;
  }
  return final_path;
}

}  // namespace stmoe
