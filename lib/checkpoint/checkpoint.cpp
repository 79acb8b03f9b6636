// SPDX-License-Identifier: Apache-2.0
// Tensors are read from the shards themselves, following the pieces of the virtual datasets: HDF5
// shows the fill value where a shard is missing or unreadable, which must never pass for weights.
#include "lib/checkpoint/checkpoint.h"

#include <algorithm>
#include <map>
#include <set>

#include "lib/base/error.h"
#include "lib/checkpoint/checksum_list.h"
#include "lib/checkpoint/format.h"
#include "lib/hdf5/file.h"
#include "lib/tensor/weight_tensor.h"

namespace stmoe {

class Checkpoint::Impl {
 public:
  explicit Impl(const Path& folder);
  const TensorInfo& find(std::string_view name) const;
  std::string where(std::string_view name) const {
    return format("{}: {}", (path / detail::kMainFile).string(), name);
  }
  void check_target(const TensorInfo& info, const Shape& shape, DType dtype) const;
  void read(const TensorInfo& info, const Tensor& into);
  void read_group(const char* group, const std::vector<NamedTensor>& into);

  Path path;
  Hdf5File main;
  int64_t step = 0, format_version = 0;
  std::string library_version, recipe_yaml, vocabulary_hash, state_json;
  std::vector<TensorInfo> tensors;
  std::vector<int64_t> shard_bytes;

 private:
  static Hdf5File open_main(const Path& folder);
  void read_tensor_list();
  void check_shards() const;
  const Hdf5File& shard(const std::string& file);
  void check_names(const char* group, const std::vector<NamedTensor>& into) const;

  std::map<std::string, Hdf5File> shards_;
};

Hdf5File Checkpoint::Impl::open_main(const Path& folder) {
  const Path file = folder / detail::kMainFile;
  if (!std::filesystem::exists(file) && !std::filesystem::exists(folder / detail::kChecksumFile))
    throw InputError(
        format("{}: is not a checkpoint (no {}); expected a directory such as "
               "RUN/checkpoints/step-00000500",
               folder.string(), detail::kMainFile));
  for (const detail::FileChecksum& entry : detail::read_checksum_list(folder)) {
    if (entry.file != detail::kMainFile) continue;
    std::string hash = hash128_of_file(file).text();
    if (hash != entry.hash)
      throw InputError(format("{}: damaged: its hash is {}, {} says {}; use another checkpoint",
                              file.string(), hash, detail::kChecksumFile, entry.hash));
  }
  return Hdf5File::open(file);
}

Checkpoint::Impl::Impl(const Path& folder) : path(folder), main(open_main(folder)) {
  if (!main.has_attribute("format") || main.string_attribute("format") != detail::kMainFormat)
    throw InputError(format("{}: is not a checkpoint of this program", main.path().string()));
  format_version = main.integer_attribute("format_version");
  if (format_version != detail::kFormatVersion)
    throw InputError(
        format("{}: format version {}, this program reads version {}; use the program "
               "that wrote it (library version {})",
               main.path().string(), format_version, detail::kFormatVersion,
               main.string_attribute("library_version")));
  library_version = main.string_attribute("library_version");
  step = main.integer_attribute("step");
  vocabulary_hash = main.string_attribute("vocabulary_hash");
  recipe_yaml = main.read_text("recipe");
  state_json = main.read_text("state");
  shard_bytes = main.dataset("shard_bytes").values<int64_t>();
  read_tensor_list();
  check_shards();
}

void Checkpoint::Impl::read_tensor_list() {
  for (const char* group : {"optimizer", "weights"}) {
    for (const std::string& name : main.group(group).datasets()) {
      std::string full = format("{}/{}", group, name);
      Hdf5Dataset dataset = main.dataset(full);
      if (dataset.shape().size() > Shape::kMaxRank)
        throw InputError(format("{}: {} dimensions, at most {} can be read", dataset.where(),
                                dataset.shape().size(), Shape::kMaxRank));
      tensors.push_back({full, parse_dtype(name_of(dataset.type())), Shape(dataset.shape())});
    }
  }
  std::sort(tensors.begin(), tensors.end(),
            [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
}

void Checkpoint::Impl::check_shards() const {
  auto count = static_cast<int64_t>(shard_bytes.size());
  for (int64_t i = 0; i < count; ++i) {
    Path file = path / detail::shard_name(i, count);
    std::error_code code;
    auto bytes = std::filesystem::file_size(file, code);
    if (code)
      throw InputError(
          format("{}: shard {} of {} cannot be read ({}); bring it back or use another "
                 "checkpoint",
                 file.string(), i + 1, count, code.message()));
    if (static_cast<int64_t>(bytes) != shard_bytes[static_cast<size_t>(i)])
      throw InputError(
          format("{}: truncated or changed: {} bytes, {} expected; use another checkpoint",
                 file.string(), bytes, shard_bytes[static_cast<size_t>(i)]));
  }
}

const Hdf5File& Checkpoint::Impl::shard(const std::string& file) {
  auto found = shards_.find(file);
  if (found != shards_.end()) return found->second;
  Hdf5File opened = Hdf5File::open(path / file);
  if (!opened.has_attribute("format") || opened.string_attribute("format") != detail::kShardFormat)
    throw InputError(format("{}: is not a shard of a checkpoint", opened.path().string()));
  if (opened.integer_attribute("step") != step)
    throw InputError(format("{}: of step {}, {} is of step {}; use another checkpoint",
                            opened.path().string(), opened.integer_attribute("step"),
                            detail::kMainFile, step));
  return shards_.emplace(file, std::move(opened)).first->second;
}

const TensorInfo& Checkpoint::Impl::find(std::string_view name) const {
  auto at =
      std::lower_bound(tensors.begin(), tensors.end(), name,
                       [](const TensorInfo& info, std::string_view n) { return info.name < n; });
  if (at == tensors.end() || at->name != name)
    throw InputError(format("{}: not in this checkpoint", where(name)));
  return *at;
}

void Checkpoint::Impl::check_target(const TensorInfo& info, const Shape& shape, DType dtype) const {
  if (shape != info.shape)
    throw InputError(
        format("{}: shape {}, the recipe needs {}; change the recipe or use another "
               "checkpoint",
               where(info.name), info.shape.text(), shape.text()));
  if (dtype != info.dtype)
    throw InputError(
        format("{}: element type {}, the recipe needs {}; change the recipe or use "
               "another checkpoint",
               where(info.name), name_of(info.dtype), name_of(dtype)));
}

void Checkpoint::Impl::read(const TensorInfo& info, const Tensor& into) {
  if (!is_host_memory(into.device())) {
    const Tensor host = Tensor::empty_on_heap(into.shape(), into.dtype());
    read(info, host);
    return into.copy_from(host);
  }
  Hdf5Dataset whole = main.dataset(info.name);
  if (!whole.is_virtual()) return whole.read(into);
  int64_t num_read = 0;
  for (const Hdf5VirtualPiece& piece : whole.virtual_pieces()) {
    shard(piece.file)
        .dataset(piece.dataset)
        .read_box(piece.source, into, into.shape().dims(), piece.target);
    num_read += Shape(piece.target.count).numel();
  }
  if (num_read != info.shape.numel())
    throw InputError(format("{}: the shards hold {} of its {} elements", where(info.name), num_read,
                            info.shape.numel()));
}

void Checkpoint::Impl::check_names(const char* group, const std::vector<NamedTensor>& into) const {
  const std::string prefix = format("{}/", group);
  std::set<std::string> wanted, present;
  for (const NamedTensor& named : into) wanted.insert(prefix + named.name);
  for (const TensorInfo& info : tensors) {
    if (info.name.starts_with(prefix)) present.insert(info.name);
  }
  auto difference = [](const std::set<std::string>& a, const std::set<std::string>& b) {
    std::vector<std::string> names;
    std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(names));
    return names;
  };
  auto listed = [](const std::vector<std::string>& names) {
    constexpr size_t kMost = 4;
    size_t count = std::min(names.size(), kMost);
    return format(
        "{} ({}{})", names.size(),
        fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(count), ", "),
        names.size() > count ? ", ..." : "");
  };
  std::vector<std::string> missing = difference(wanted, present),
                           extra = difference(present, wanted);
  if (missing.empty() && extra.empty()) return;
  std::string text = format("{}: of another {}", (path / detail::kMainFile).string(),
                            group == std::string_view("weights") ? "model" : "optimizer");
  if (!missing.empty())
    text += format("; missing tensors that the recipe needs: {}", listed(missing));
  if (!extra.empty()) text += format("; tensors that the recipe does not have: {}", listed(extra));
  throw InputError(text + "; change the recipe or use another checkpoint");
}

void Checkpoint::Impl::read_group(const char* group, const std::vector<NamedTensor>& into) {
  check_names(group, into);
  const auto info = [&](const NamedTensor& named) -> const TensorInfo& {
    return find(format("{}/{}", group, named.name));
  };
  for (const NamedTensor& named : into)
    check_target(info(named), named.tensor.shape(), WeightTensor::of(named).dtype());
  for (const NamedTensor& named : into) {
    if (named.storage == WeightStorage::f32) {
      read(info(named), named.tensor);
      continue;
    }
    const Tensor values = Tensor::empty_on_heap(named.tensor.shape(), DType::f32);
    read(info(named), values);
    WeightTensor::of(named).assign(values);
  }
}

Checkpoint::Checkpoint(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Checkpoint Checkpoint::open(const Path& directory) {
  return Checkpoint(std::make_shared<Impl>(directory));
}

const Path& Checkpoint::path() const { return impl_->path; }
int64_t Checkpoint::step() const { return impl_->step; }
int64_t Checkpoint::format_version() const { return impl_->format_version; }
const std::string& Checkpoint::library_version() const { return impl_->library_version; }
const std::string& Checkpoint::recipe_yaml() const { return impl_->recipe_yaml; }
const std::string& Checkpoint::vocabulary_hash() const { return impl_->vocabulary_hash; }
const std::string& Checkpoint::state_json() const { return impl_->state_json; }
int64_t Checkpoint::num_shards() const { return static_cast<int64_t>(impl_->shard_bytes.size()); }
const std::vector<TensorInfo>& Checkpoint::tensors() const { return impl_->tensors; }

void Checkpoint::read(std::string_view name, const Tensor& into) const {
  const TensorInfo& info = impl_->find(name);
  impl_->check_target(info, into.shape(), into.dtype());
  impl_->read(info, into);
}

void Checkpoint::read_weights(const std::vector<NamedTensor>& weights) const {
  impl_->read_group("weights", weights);
}

void Checkpoint::read_optimizer(const std::vector<NamedTensor>& optimizer) const {
  impl_->read_group("optimizer", optimizer);
}

}  // namespace stmoe
