// SPDX-License-Identifier: Apache-2.0
// A checkpoint is a directory (docs/design/checkpoints.md): shard files with the tensors,
// checkpoint.h5 that shows every tensor whole (virtual datasets over the shards) with everything
// else, and a list of the files' hashes. Reading throws InputError naming file, tensor and what was
// expected; writing throws StorageError and leaves the last complete checkpoint as it was.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/checkpoint/folder.h"
#include "lib/tensor/tensor.h"

namespace stmoe {

struct CheckpointContents {
  int64_t step = 0;
  std::vector<NamedTensor> weights,
      optimizer;  // host memory; stored as /weights/NAME, /optimizer/NAME
  std::string recipe_yaml, vocabulary_hash;
  std::string state_json;  // data position, random state, counters: the trainer's own
};

// Writes `checkpoints`/step-00000500, flushed to disk and complete as soon as it has that name,
// then `latest`. A checkpoint of the same step is replaced. What killed processes left behind is
// removed. One process at a time may write into a directory.
Path save_checkpoint(const Path& checkpoints, const CheckpointContents& contents);

struct TensorInfo {
  std::string name;  // "weights/decoder/logits/kernel"
  DType dtype = DType::f32;
  Shape shape;
  int64_t bytes() const { return shape.numel() * static_cast<int64_t>(size_of(dtype)); }
};

// An open checkpoint. Opening checks the hash of checkpoint.h5 and that every shard is there in
// full length; every read checks the checksums of the chunks it touches.
class Checkpoint {
 public:
  static Checkpoint open(const Path& directory);

  const Path& path() const;
  int64_t step() const;
  int64_t format_version() const;
  const std::string& library_version() const;  // of the program that wrote it
  const std::string& recipe_yaml() const;
  const std::string& vocabulary_hash() const;
  const std::string& state_json() const;
  int64_t num_shards() const;
  // All tensors, sorted by name.
  const std::vector<TensorInfo>& tensors() const;

  // Fills a tensor of the same shape and element type; `name` as in tensors().
  void read(std::string_view name, const Tensor& into) const;
  // Fill all the weights (optimizer tensors); the names must be exactly those of the checkpoint.
  // Names, shapes and types are all checked before anything is read.
  void read_weights(const std::vector<NamedTensor>& weights) const;
  void read_optimizer(const std::vector<NamedTensor>& optimizer) const;

  class Impl;

 private:
  explicit Checkpoint(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace stmoe
