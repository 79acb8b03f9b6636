// SPDX-License-Identifier: Apache-2.0
#include "lib/hdf5/group.h"

#include <algorithm>
#include <limits>

#include "lib/hdf5/library.h"

namespace stmoe {

using detail::Hdf5Handle;
using detail::lock_hdf5;

namespace {

std::vector<hsize_t> extent(std::span<const int64_t> shape) { return {shape.begin(), shape.end()}; }

Hdf5Handle make_space(std::span<const int64_t> shape, bool is_extendible) {
  if (shape.empty()) return {H5Screate(H5S_SCALAR), H5Sclose};
  std::vector<hsize_t> size = extent(shape), most = size;
  if (is_extendible) most[0] = H5S_UNLIMITED;
  return {H5Screate_simple(static_cast<int>(size.size()), size.data(), most.data()), H5Sclose};
}

// Without times in object headers, so that equal contents give equal bytes.
Hdf5Handle without_times(hid_t kind) {
  Hdf5Handle properties(H5Pcreate(kind), H5Pclose);
  if (properties.id() < 0 || H5Pset_obj_track_times(properties.id(), false) < 0)
    throw BugError("hdf5: object creation properties cannot be set");
  return properties;
}

// False when HDF5 refuses a property.
bool set_layout(hid_t properties, ElementType type, std::span<const int64_t> shape,
                const Hdf5Layout& layout) {
  int64_t numel = 1;
  for (int64_t dim : shape) numel *= dim;
  bool is_compact = !layout.is_extendible && (shape.empty() || numel == 0);
  if (is_compact) return H5Pset_layout(properties, H5D_COMPACT) >= 0;
  std::vector<hsize_t> chunk =
      extent(layout.chunk.empty() ? hdf5_chunk(shape, type, kHdf5ChunkBytes) : layout.chunk);
  return H5Pset_chunk(properties, static_cast<int>(chunk.size()), chunk.data()) >= 0 &&
         H5Pset_fill_time(properties, H5D_FILL_TIME_IFSET) >= 0 &&
         (layout.deflate == 0 ||
          (H5Pset_shuffle(properties) >= 0 &&
           H5Pset_deflate(properties, static_cast<unsigned>(layout.deflate)) >= 0)) &&
         (!layout.has_checksum || H5Pset_fletcher32(properties) >= 0);
}

std::string_view parent_of(std::string_view path) {
  size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
}

void check_new(const Hdf5Group& group, std::string_view path, std::span<const int64_t> shape) {
  STMOE_CHECK(!path.empty(), "{}: a dataset without a name", group.where());
  for (int64_t dim : shape)
    STMOE_CHECK(dim >= 0, "{}: {}: shape [{}]", group.where(), path, fmt::join(shape, ", "));
}

// '%' begins a pattern in the names of virtual pieces.
std::string escaped(const std::string& name) {
  std::string result;
  for (char c : name) result.append(c == '%' ? 2 : 1, c);
  return result;
}

void select(const detail::Hdf5OpenFile& file, std::string_view object, hid_t space,
            const Hdf5Box& box) {
  std::vector<hsize_t> start = extent(box.start), count = extent(box.count);
  if (H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr) < 0)
    file.fail_reading(object, "be selected");
}

}  // namespace

std::string Hdf5Group::path_of(std::string_view path) const {
  while (path.starts_with('/')) path.remove_prefix(1);
  return name_.empty() ? std::string(path) : format("{}/{}", name_, path);
}

bool Hdf5Group::contains(std::string_view path) const {
  auto lock = lock_hdf5();
  // Every part of the path must be there before the next one may be asked for.
  for (size_t end = 0; end != std::string_view::npos;) {
    end = path.find('/', end + 1);
    std::string part(path.substr(0, end));
    if (part.empty() || H5Lexists(id(), part.c_str(), H5P_DEFAULT) <= 0) return false;
  }
  return H5Oexists_by_name(id(), std::string(path).c_str(), H5P_DEFAULT) > 0;
}

std::vector<std::string> Hdf5Group::children() const {
  auto lock = lock_hdf5();
  std::vector<std::string> names;
  auto add = [](hid_t, const char* name, const H5L_info_t*, void* into) -> herr_t {
    static_cast<std::vector<std::string>*>(into)->emplace_back(name);
    return 0;
  };
  if (H5Literate(id(), H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, add, &names) < 0)
    file_->fail_reading(name_, "be listed");
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> Hdf5Group::datasets() const {
  auto lock = lock_hdf5();
  std::vector<std::string> paths;
  auto add = [](hid_t, const char* name, const H5O_info_t* info, void* into) -> herr_t {
    if (info->type == H5O_TYPE_DATASET)
      static_cast<std::vector<std::string>*>(into)->emplace_back(name);
    return 0;
  };
  if (H5Ovisit2(id(), H5_INDEX_NAME, H5_ITER_NATIVE, add, &paths, H5O_INFO_BASIC) < 0)
    file_->fail_reading(name_, "be listed");
  std::sort(paths.begin(), paths.end());
  return paths;
}

Hdf5Group Hdf5Group::group(std::string_view path) const {
  auto lock = lock_hdf5();
  std::string full = path_of(path);
  if (!contains(path)) throw InputError(format("{}: missing", file_->where(full)));
  auto handle = std::make_shared<Hdf5Handle>(H5Gopen2(id(), std::string(path).c_str(), H5P_DEFAULT),
                                             H5Gclose);
  if (handle->id() < 0) file_->fail_reading(full, "be opened as a group");
  return Hdf5Group(file_, std::move(handle), std::move(full));
}

Hdf5Group Hdf5Group::create_group(std::string_view path) {
  auto lock = lock_hdf5();
  file_->check_writing(path);
  make_groups(path);
  file_->check_written(path);
  return group(path);
}

void Hdf5Group::make_groups(std::string_view path) {
  for (size_t end = 0; !path.empty() && end != std::string_view::npos;) {
    end = path.find('/', end + 1);
    std::string part(path.substr(0, end));
    if (H5Lexists(id(), part.c_str(), H5P_DEFAULT) > 0) continue;
    Hdf5Handle properties = without_times(H5P_GROUP_CREATE);
    Hdf5Handle made(H5Gcreate2(id(), part.c_str(), H5P_DEFAULT, properties.id(), H5P_DEFAULT),
                    H5Gclose);
    if (made.id() < 0) file_->fail_writing(path_of(part), "be created");
  }
}

Hdf5Dataset Hdf5Group::dataset(std::string_view path) const {
  auto lock = lock_hdf5();
  std::string full = path_of(path);
  if (!contains(path)) throw InputError(format("{}: missing", file_->where(full)));
  auto handle = std::make_shared<Hdf5Handle>(H5Dopen2(id(), std::string(path).c_str(), H5P_DEFAULT),
                                             H5Dclose);
  if (handle->id() < 0) file_->fail_reading(full, "be opened as a dataset");
  return Hdf5Dataset(file_, std::move(handle), std::move(full));
}

Hdf5Dataset Hdf5Group::create_dataset(std::string_view path, ElementType type,
                                      std::span<const int64_t> shape, const Hdf5Layout& layout) {
  auto lock = lock_hdf5();
  file_->check_writing(path);
  check_new(*this, path, shape);
  std::string full = path_of(path);
  Hdf5Handle properties = without_times(H5P_DATASET_CREATE);
  make_groups(parent_of(path));
  if (!set_layout(properties.id(), type, shape, layout))
    throw BugError(format("{}: chunks [{}] of shape [{}]", file_->where(full),
                          fmt::join(layout.chunk, ", "), fmt::join(shape, ", ")));
  Hdf5Handle space = make_space(shape, layout.is_extendible);
  auto handle = std::make_shared<Hdf5Handle>(
      H5Dcreate2(id(), std::string(path).c_str(), detail::native_type(type), space.id(),
                 H5P_DEFAULT, properties.id(), H5P_DEFAULT),
      H5Dclose);
  if (handle->id() < 0) file_->fail_writing(full, "be created");
  file_->check_written(full);
  return Hdf5Dataset(file_, std::move(handle), std::move(full));
}

Hdf5Dataset Hdf5Group::create_virtual(std::string_view path, ElementType type,
                                      std::span<const int64_t> shape,
                                      const std::vector<Hdf5VirtualPiece>& pieces) {
  auto lock = lock_hdf5();
  file_->check_writing(path);
  check_new(*this, path, shape);
  std::string full = path_of(path);
  Hdf5Handle properties = without_times(H5P_DATASET_CREATE);
  make_groups(parent_of(path));
  Hdf5Handle space = make_space(shape, false);
  bool is_float = type <= ElementType::bf16;
  double missing = is_float ? std::numeric_limits<double>::quiet_NaN() : 0.0;
  if (H5Pset_fill_value(properties.id(), H5T_NATIVE_DOUBLE, &missing) < 0)
    file_->fail_writing(full, "be created");
  for (const Hdf5VirtualPiece& piece : pieces) {
    Hdf5Handle target = make_space(shape, false);
    // The source's own extent matters to the library only as far as the box reaches.
    std::vector<int64_t> reach = piece.source.start;
    for (size_t i = 0; i < reach.size(); ++i) reach[i] += piece.source.count[i];
    Hdf5Handle source = make_space(reach, false);
    select(*file_, full, target.id(), piece.target);
    select(*file_, full, source.id(), piece.source);
    if (H5Pset_virtual(properties.id(), target.id(), escaped(piece.file).c_str(),
                       escaped(piece.dataset).c_str(), source.id()) < 0)
      file_->fail_writing(full, "be created");
  }
  auto handle = std::make_shared<Hdf5Handle>(
      H5Dcreate2(id(), std::string(path).c_str(), detail::native_type(type), space.id(),
                 H5P_DEFAULT, properties.id(), H5P_DEFAULT),
      H5Dclose);
  if (handle->id() < 0) file_->fail_writing(full, "be created");
  file_->check_written(full);
  return Hdf5Dataset(file_, std::move(handle), std::move(full));
}

void Hdf5Group::write_text(std::string_view path, std::string_view text) {
  auto lock = lock_hdf5();
  file_->check_writing(path);
  std::string full = path_of(path);
  Hdf5Handle type = detail::text_type(text.size());
  Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  Hdf5Handle properties = without_times(H5P_DATASET_CREATE);
  make_groups(parent_of(path));
  Hdf5Handle dataset(H5Dcreate2(id(), std::string(path).c_str(), type.id(), space.id(), H5P_DEFAULT,
                                properties.id(), H5P_DEFAULT),
                     H5Dclose);
  if (dataset.id() < 0) file_->fail_writing(full, "be created");
  std::string padded(text);
  if (padded.empty()) padded.push_back('\0');
  if (H5Dwrite(dataset.id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, padded.data()) < 0)
    file_->fail_writing(full);
  file_->check_written(full);
}

std::string Hdf5Group::read_text(std::string_view path) const {
  auto lock = lock_hdf5();
  std::string full = path_of(path);
  if (!contains(path)) throw InputError(format("{}: missing", file_->where(full)));
  Hdf5Handle dataset(H5Dopen2(id(), std::string(path).c_str(), H5P_DEFAULT), H5Dclose);
  if (dataset.id() < 0) file_->fail_reading(full, "be opened as a text");
  Hdf5Handle space(H5Dget_space(dataset.id()), H5Sclose);
  if (H5Sget_simple_extent_npoints(space.id()) != 1)
    throw InputError(format("{}: is an array, expected one text", file_->where(full)));
  return detail::read_string(dataset.id(), false, *file_, full);
}

bool Hdf5Group::is_text(std::string_view path) const {
  auto lock = lock_hdf5();
  if (!contains(path)) return false;
  Hdf5Handle dataset(H5Dopen2(id(), std::string(path).c_str(), H5P_DEFAULT), H5Dclose);
  if (dataset.id() < 0) return false;
  Hdf5Handle type(H5Dget_type(dataset.id()), H5Tclose);
  return H5Tget_class(type.id()) == H5T_STRING;
}

}  // namespace stmoe
