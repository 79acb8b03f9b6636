// SPDX-License-Identifier: Apache-2.0
#include "lib/checkpoint/report.h"

#include <algorithm>

#include <nlohmann/json.hpp>

namespace stmoe {
namespace {

using Json = nlohmann::ordered_json;

int64_t total_bytes(const Checkpoint& checkpoint) {
  int64_t bytes = 0;
  for (const TensorInfo& info : checkpoint.tensors()) bytes += info.bytes();
  return bytes;
}

// 104600000 as "104,600,000".
std::string grouped(int64_t value) {
  std::string digits = std::to_string(value);
  for (auto at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<size_t>(at), 1, ',');
  return digits;
}

std::string tensor_table(const Checkpoint& checkpoint) {
  size_t name_width = 4, shape_width = 5;
  for (const TensorInfo& info : checkpoint.tensors()) {
    name_width = std::max(name_width, info.name.size());
    shape_width = std::max(shape_width, info.shape.text().size());
  }
  std::string text = format("{:<{}}  {:<{}}  {:<5}  {:>15}\n", "name", name_width, "shape",
                            shape_width, "dtype", "bytes");
  for (const TensorInfo& info : checkpoint.tensors())
    text += format("{:<{}}  {:<{}}  {:<5}  {:>15}\n", info.name, name_width, info.shape.text(),
                   shape_width, name_of(info.dtype), grouped(info.bytes()));
  return text;
}

}  // namespace

int64_t num_parameters(const Checkpoint& checkpoint) {
  int64_t count = 0;
  for (const TensorInfo& info : checkpoint.tensors()) {
    if (info.name.starts_with("weights/")) count += info.shape.numel();
  }
  return count;
}

std::string describe_checkpoint(const Checkpoint& checkpoint, const std::string& recipe_summary) {
  std::string text;
  auto line = [&](const char* key, const std::string& value) {
    text += format("{:<16} {}\n", key, value);
  };
  line("checkpoint", checkpoint.path().string());
  line("step", std::to_string(checkpoint.step()));
  line("format", format("version {}, written by stmoe {}", checkpoint.format_version(),
                        checkpoint.library_version()));
  line("vocabulary", checkpoint.vocabulary_hash());
  line("parameters", grouped(num_parameters(checkpoint)));
  line("tensors",
       format("{} in {} shard{}, {} bytes", checkpoint.tensors().size(), checkpoint.num_shards(),
              checkpoint.num_shards() == 1 ? "" : "s", grouped(total_bytes(checkpoint))));
  return text + recipe_summary + "\n" + tensor_table(checkpoint);
}

std::string checkpoint_json(const Checkpoint& checkpoint) {
  Json tensors = Json::array();
  for (const TensorInfo& info : checkpoint.tensors()) {
    std::span<const int64_t> dims = info.shape.dims();
    tensors.push_back({{"name", info.name},
                       {"shape", std::vector<int64_t>(dims.begin(), dims.end())},
                       {"dtype", name_of(info.dtype)},
                       {"bytes", info.bytes()}});
  }
  Json result = {{"checkpoint", checkpoint.path().string()},
                 {"step", checkpoint.step()},
                 {"format_version", checkpoint.format_version()},
                 {"library_version", checkpoint.library_version()},
                 {"vocabulary_hash", checkpoint.vocabulary_hash()},
                 {"parameters", num_parameters(checkpoint)},
                 {"bytes", total_bytes(checkpoint)},
                 {"shards", checkpoint.num_shards()},
                 {"recipe", checkpoint.recipe_yaml()},
                 {"tensors", tensors}};
  return result.dump(2) + "\n";
}

}  // namespace stmoe
