// SPDX-License-Identifier: Apache-2.0
// The hashes of whole files find any changed byte; the checksums of the chunks then tell where it
// is. After that every tensor is read through the virtual datasets' pieces, which finds mistakes of
// the writer too.
#include "lib/checkpoint/verify.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/checkpoint/checksum_list.h"
#include "lib/checkpoint/format.h"
#include "lib/hdf5/file.h"

namespace stmoe {
namespace {

bool is_readable(const Hdf5Dataset& dataset, const Hdf5Chunk& chunk) {
  Hdf5Box box{chunk.start, dataset.chunk()};
  int64_t numel = 1;
  for (size_t i = 0; i < box.count.size(); ++i) {
    box.count[i] = std::min(box.count[i], dataset.shape()[i] - box.start[i]);
    numel *= box.count[i];
  }
  std::vector<std::byte> bytes(static_cast<size_t>(numel) * size_of(dataset.type()));
  try {
    dataset.read_box(box, Hdf5Memory(dataset.type(), bytes.data(), numel), box.count,
                     {std::vector<int64_t>(box.count.size(), 0), box.count});
    return true;
  } catch (const InputError&) {
    return false;
  }
}

// The first chunk of a shard that does not match its checksum.
std::string damaged_place(const Path& shard) {
  Hdf5File file = Hdf5File::open(shard);
  for (const std::string& name : file.datasets()) {
    Hdf5Dataset dataset = file.dataset(name);
    for (const Hdf5Chunk& chunk : dataset.chunks()) {
      if (!is_readable(dataset, chunk))
        return format("{}: damaged in bytes {} to {} of the file (elements from [{}] on)", name,
                      chunk.file_offset, chunk.file_offset + chunk.bytes,
                      fmt::join(chunk.start, ", "));
    }
  }
  return "damaged outside the tensors' data";
}

void check_hash(const Path& checkpoint, const detail::FileChecksum& entry) {
  const Path file = checkpoint / entry.file;
  if (!std::filesystem::exists(file))
    throw InputError(format("{}: missing; bring it back or use another checkpoint", file.string()));
  std::string hash = hash128_of_file(file).text();
  if (hash == entry.hash) return;
  std::string place = "damaged";
  if (entry.file != detail::kMainFile) {
    try {
      place = damaged_place(file);
    } catch (const InputError& error) {
      throw InputError(format("{}; its hash is {}, {} says {}", error.what(), hash,
                              detail::kChecksumFile, entry.hash));
    }
  }
  throw InputError(format("{}: {}; its hash is {}, {} says {}", file.string(), place, hash,
                          detail::kChecksumFile, entry.hash));
}

void check_list(const Checkpoint& checkpoint, const std::vector<detail::FileChecksum>& list) {
  const int64_t count = checkpoint.num_shards();
  bool is_right = static_cast<int64_t>(list.size()) == count + 1;
  for (int64_t i = 0; is_right && i < count; ++i)
    is_right = list[static_cast<size_t>(i + 1)].file == detail::shard_name(i, count);
  if (!is_right)
    throw InputError(format("{}: damaged; expected {} and {} shard files",
                            (checkpoint.path() / detail::kChecksumFile).string(), detail::kMainFile,
                            count));
}

}  // namespace

VerifiedCheckpoint verify_checkpoint(const Path& checkpoint) {
  const std::vector<detail::FileChecksum> list = detail::read_checksum_list(checkpoint);
  VerifiedCheckpoint result;
  for (const detail::FileChecksum& entry : list) {
    check_hash(checkpoint, entry);
    result.bytes += static_cast<int64_t>(std::filesystem::file_size(checkpoint / entry.file));
  }
  const Checkpoint opened = Checkpoint::open(checkpoint);
  check_list(opened, list);
  for (const TensorInfo& info : opened.tensors()) {
    opened.read(info.name, Tensor::empty(info.shape, info.dtype));
    ++result.num_tensors;
  }
  return result;
}

}  // namespace stmoe
