// SPDX-License-Identifier: Apache-2.0
#include "lib/hdf5/dataset.h"

#include <algorithm>

#include "lib/hdf5/library.h"

namespace stmoe {

using detail::Hdf5Handle;
using detail::lock_hdf5;

namespace {

std::vector<hsize_t> extent(std::span<const int64_t> shape) { return {shape.begin(), shape.end()}; }

int64_t product(std::span<const int64_t> shape) {
  int64_t result = 1;
  for (int64_t dim : shape) result *= dim;
  return result;
}

std::string shape_text(std::span<const int64_t> shape) {
  return format("[{}]", fmt::join(shape, ", "));
}

// The element type of an HDF5 type; byte order may differ from ours, reading converts it.
bool classify(hid_t type, ElementType& into) {
  static constexpr ElementType kSigned[] = {ElementType::i8, ElementType::i16, ElementType::i32,
                                            ElementType::i64};
  static constexpr ElementType kUnsigned[] = {ElementType::u8, ElementType::u16, ElementType::u32,
                                              ElementType::u64};
  size_t bytes = H5Tget_size(type);
  H5T_class_t kind = H5Tget_class(type);
  if (kind == H5T_INTEGER) {
    int log2 = bytes == 1 ? 0 : bytes == 2 ? 1 : bytes == 4 ? 2 : bytes == 8 ? 3 : -1;
    if (log2 < 0) return false;
    into = (H5Tget_sign(type) == H5T_SGN_NONE ? kUnsigned : kSigned)[log2];
    return true;
  }
  if (kind != H5T_FLOAT) return false;
  if (bytes == 2 && H5Tequal(type, detail::native_type(ElementType::bf16)) <= 0) return false;
  if (bytes != 2 && bytes != 4 && bytes != 8) return false;
  into = bytes == 8 ? ElementType::f64 : bytes == 4 ? ElementType::f32 : ElementType::bf16;
  return true;
}

Hdf5Handle rows_space(hid_t dataset, int64_t first_row, int64_t num_rows,
                      std::span<const int64_t> shape) {
  Hdf5Handle space(H5Dget_space(dataset), H5Sclose);
  std::vector<hsize_t> start(shape.size(), 0), count = extent(shape);
  start[0] = static_cast<hsize_t>(first_row);
  count[0] = static_cast<hsize_t>(num_rows);
  H5Sselect_hyperslab(space.id(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr);
  return space;
}

Hdf5Handle box_space(std::span<const int64_t> shape, const Hdf5Box& box) {
  if (shape.empty()) return {H5Screate(H5S_SCALAR), H5Sclose};
  std::vector<hsize_t> size = extent(shape), start = extent(box.start), count = extent(box.count);
  Hdf5Handle space(H5Screate_simple(static_cast<int>(size.size()), size.data(), nullptr), H5Sclose);
  H5Sselect_hyperslab(space.id(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr);
  return space;
}

Hdf5Handle flat_space(int64_t numel) {
  auto size = static_cast<hsize_t>(numel);
  return {H5Screate_simple(1, &size, nullptr), H5Sclose};
}

Hdf5Box bounds_of(hid_t space) {
  auto rank = static_cast<size_t>(H5Sget_simple_extent_ndims(space));
  std::vector<hsize_t> first(rank), last(rank);
  H5Sget_select_bounds(space, first.data(), last.data());
  Hdf5Box box;
  for (size_t i = 0; i < rank; ++i) {
    box.start.push_back(static_cast<int64_t>(first[i]));
    box.count.push_back(static_cast<int64_t>(last[i] - first[i] + 1));
  }
  return box;
}

}  // namespace

template <class Byte>
void Hdf5MemoryOf<Byte>::check_contiguous(bool is_contiguous) {
  STMOE_CHECK(is_contiguous, "hdf5: the tensor is not contiguous");
}
template struct Hdf5MemoryOf<void>;
template struct Hdf5MemoryOf<const void>;

std::vector<int64_t> hdf5_chunk(std::span<const int64_t> shape, ElementType type, int64_t bytes) {
  std::vector<int64_t> chunk(shape.begin(), shape.end());
  for (int64_t& dim : chunk) dim = std::max<int64_t>(dim, 1);
  int64_t most = std::max<int64_t>(1, bytes / static_cast<int64_t>(size_of(type)));
  for (int64_t& dim : chunk) {
    int64_t row = product(chunk) / dim;  // elements of one step along this dimension
    if (dim * row <= most) break;
    int64_t fitting = std::clamp<int64_t>(most / row, 1, dim);
    int64_t pieces = (dim + fitting - 1) / fitting;
    dim = (dim + pieces - 1) / pieces;
  }
  return chunk;
}

Hdf5Dataset::Hdf5Dataset(std::shared_ptr<detail::Hdf5OpenFile> file,
                         std::shared_ptr<Hdf5Handle> handle, std::string name)
    : Hdf5Object(std::move(file), std::move(handle), std::move(name)) {
  read_layout();
}

void Hdf5Dataset::read_layout() {
  Hdf5Handle space(H5Dget_space(id()), H5Sclose), type(H5Dget_type(id()), H5Tclose);
  Hdf5Handle properties(H5Dget_create_plist(id()), H5Pclose);
  int rank = H5Sget_simple_extent_ndims(space.id());
  if (type.id() < 0 || properties.id() < 0 || rank < 0) file_->fail_reading(name_);
  std::vector<hsize_t> size(static_cast<size_t>(rank));
  H5Sget_simple_extent_dims(space.id(), size.data(), nullptr);
  shape_.assign(size.begin(), size.end());
  if (!classify(type.id(), type_))
    throw InputError(format("{}: is not an array of numbers that this program knows", where()));
  H5D_layout_t layout = H5Pget_layout(properties.id());
  is_virtual_ = layout == H5D_VIRTUAL;
  if (layout != H5D_CHUNKED) return;
  H5Pget_chunk(properties.id(), rank, size.data());
  chunk_.assign(size.begin(), size.end());
  for (int i = 0; i < H5Pget_nfilters(properties.id()); ++i) {
    size_t num_values = 0;
    unsigned flags = 0;
    H5Z_filter_t filter = H5Pget_filter2(properties.id(), static_cast<unsigned>(i), &flags,
                                         &num_values, nullptr, 0, nullptr, nullptr);
    has_checksum_ |= filter == H5Z_FILTER_FLETCHER32;
  }
}

int64_t Hdf5Dataset::numel() const { return product(shape_); }

void Hdf5Dataset::check_memory(ElementType type, int64_t numel, int64_t expected_numel) const {
  if (type != type_)
    throw InputError(
        format("{}: element type {}, expected {}", where(), name_of(type_), name_of(type)));
  if (numel != expected_numel)
    throw InputError(format("{}: shape {}, {} elements; expected {}", where(), shape_text(shape_),
                            expected_numel, numel));
}

void Hdf5Dataset::read(const Hdf5Memory& into) const {
  auto lock = lock_hdf5();
  if (into.has_shape && into.shape != shape_)
    throw InputError(
        format("{}: shape {}, expected {}", where(), shape_text(shape_), shape_text(into.shape)));
  check_memory(into.type, into.numel, numel());
  if (into.numel == 0) return;
  if (H5Dread(id(), detail::native_type(type_), H5S_ALL, H5S_ALL, H5P_DEFAULT, into.data) < 0)
    file_->fail_reading(name_);
}

int64_t Hdf5Dataset::rows_in(int64_t first_row, ElementType type, int64_t numel) const {
  STMOE_CHECK(!shape_.empty(), "{}: a single value has no rows", where());
  int64_t row = product(std::span(shape_).subspan(1));
  int64_t rows = row == 0 ? 0 : numel / row;
  check_memory(type, numel, rows * row);
  if (first_row < 0 || first_row + rows > shape_[0])
    throw InputError(format("{}: rows {} to {} asked for, it has {}", where(), first_row,
                            first_row + rows, shape_[0]));
  return rows;
}

void Hdf5Dataset::read_rows(int64_t first_row, const Hdf5Memory& into) const {
  auto lock = lock_hdf5();
  int64_t rows = rows_in(first_row, into.type, into.numel);
  if (rows == 0) return;
  Hdf5Handle source = rows_space(id(), first_row, rows, shape_), target = flat_space(into.numel);
  if (H5Dread(id(), detail::native_type(type_), target.id(), source.id(), H5P_DEFAULT, into.data) <
      0)
    file_->fail_reading(name_);
}

void Hdf5Dataset::read_box(const Hdf5Box& source, const Hdf5Memory& into,
                           std::span<const int64_t> memory_shape, const Hdf5Box& target) const {
  auto lock = lock_hdf5();
  check_memory(into.type, into.numel, product(memory_shape));
  bool fits = source.start.size() == shape_.size() && source.count.size() == shape_.size() &&
              product(source.count) == product(target.count);
  for (size_t i = 0; fits && i < shape_.size(); ++i)
    fits = source.start[i] >= 0 && source.start[i] + source.count[i] <= shape_[i];
  if (!fits)
    throw InputError(format("{}: shape {}, elements from {} on, {} of them, are asked for", where(),
                            shape_text(shape_), shape_text(source.start),
                            shape_text(source.count)));
  Hdf5Handle file_space = box_space(shape_, source), memory_space = box_space(memory_shape, target);
  if (H5Dread(id(), detail::native_type(type_), memory_space.id(), file_space.id(), H5P_DEFAULT,
              into.data) < 0)
    file_->fail_reading(name_);
}

void Hdf5Dataset::write(const Hdf5ConstMemory& from) {
  auto lock = lock_hdf5();
  file_->check_writing(name_);
  STMOE_CHECK(
      from.type == type_ && from.numel == numel() && (!from.has_shape || from.shape == shape_),
      "{}: {} elements of {} written into shape {} of {}", where(), from.numel, name_of(from.type),
      shape_text(shape_), name_of(type_));
  if (from.numel == 0) return;
  if (H5Dwrite(id(), detail::native_type(type_), H5S_ALL, H5S_ALL, H5P_DEFAULT, from.data) < 0)
    file_->fail_writing(name_);
  file_->check_written(name_);
}

void Hdf5Dataset::write_rows(int64_t first_row, const Hdf5ConstMemory& from) {
  auto lock = lock_hdf5();
  file_->check_writing(name_);
  STMOE_CHECK(from.type == type_, "{}: {} written into {}", where(), name_of(from.type),
              name_of(type_));
  int64_t rows = rows_in(first_row, from.type, from.numel);
  if (rows == 0) return;
  Hdf5Handle target = rows_space(id(), first_row, rows, shape_), source = flat_space(from.numel);
  if (H5Dwrite(id(), detail::native_type(type_), source.id(), target.id(), H5P_DEFAULT, from.data) <
      0)
    file_->fail_writing(name_);
  file_->check_written(name_);
}

void Hdf5Dataset::append(const Hdf5ConstMemory& from) {
  auto lock = lock_hdf5();
  STMOE_CHECK(!shape_.empty(), "{}: a single value cannot grow", where());
  int64_t first_row = shape_[0];
  int64_t row = product(std::span(shape_).subspan(1));
  STMOE_CHECK(row > 0 && from.numel % row == 0, "{}: {} elements appended to rows of {}", where(),
              from.numel, row);
  if (from.numel == 0) return;
  resize_rows(first_row + from.numel / row);
  write_rows(first_row, from);
}

void Hdf5Dataset::resize_rows(int64_t num_rows) {
  auto lock = lock_hdf5();
  file_->check_writing(name_);
  STMOE_CHECK(!shape_.empty() && num_rows >= 0, "{}: resized to {} rows", where(), num_rows);
  std::vector<int64_t> grown = shape_;
  grown[0] = num_rows;
  if (H5Dset_extent(id(), extent(grown).data()) < 0) file_->fail_writing(name_, "be resized");
  file_->check_written(name_);
  shape_ = grown;
}

std::vector<Hdf5VirtualPiece> Hdf5Dataset::virtual_pieces() const {
  auto lock = lock_hdf5();
  std::vector<Hdf5VirtualPiece> pieces;
  if (!is_virtual_) return pieces;
  Hdf5Handle properties(H5Dget_create_plist(id()), H5Pclose);
  size_t count = 0;
  if (H5Pget_virtual_count(properties.id(), &count) < 0) file_->fail_reading(name_);
  auto text = [&](auto get, size_t i) {
    ssize_t length = get(properties.id(), i, nullptr, 0);
    if (length < 0) file_->fail_reading(name_);
    std::string result(static_cast<size_t>(length), '\0');
    get(properties.id(), i, result.data(), result.size() + 1);
    return result;
  };
  for (size_t i = 0; i < count; ++i) {
    Hdf5Handle target(H5Pget_virtual_vspace(properties.id(), i), H5Sclose);
    Hdf5Handle source(H5Pget_virtual_srcspace(properties.id(), i), H5Sclose);
    if (target.id() < 0 || source.id() < 0) file_->fail_reading(name_);
    pieces.push_back({text(H5Pget_virtual_filename, i), text(H5Pget_virtual_dsetname, i),
                      bounds_of(target.id()), bounds_of(source.id())});
  }
  return pieces;
}

std::vector<Hdf5Chunk> Hdf5Dataset::chunks() const {
  auto lock = lock_hdf5();
  std::vector<Hdf5Chunk> result;
  if (chunk_.empty()) return result;
  Hdf5Handle space(H5Dget_space(id()), H5Sclose);
  hsize_t count = 0;
  if (H5Dget_num_chunks(id(), space.id(), &count) < 0) file_->fail_reading(name_);
  std::vector<hsize_t> start(shape_.size());
  for (hsize_t i = 0; i < count; ++i) {
    unsigned mask = 0;
    haddr_t address = 0;
    hsize_t bytes = 0;
    if (H5Dget_chunk_info(id(), space.id(), i, start.data(), &mask, &address, &bytes) < 0)
      file_->fail_reading(name_);
    result.push_back({{start.begin(), start.end()}, address, bytes});
  }
  return result;
}

}  // namespace stmoe
