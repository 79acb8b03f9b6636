// SPDX-License-Identifier: Apache-2.0
// Datasets: whole and partial reads and writes straight from and to the caller's memory, growing
// ones, virtual ones. Shapes are row-major element counts; "rows" run over the leading dimension.
#pragma once

#include <ranges>
#include <span>
#include <type_traits>

#include "lib/hdf5/element_type.h"
#include "lib/hdf5/object.h"

namespace stmoe {

// Contiguous memory of known element type: any std::span, std::vector or std::array of numbers, or
// a tensor (whatever has raw(), dtype(), shape(), numel() and is_contiguous(): this room lies below
// tensors). A tensor's shape is checked.
template <class Byte>
struct Hdf5MemoryOf {
  ElementType type;
  Byte* data;
  int64_t numel;
  std::vector<int64_t> shape;
  bool has_shape = false;

  Hdf5MemoryOf(ElementType type_, Byte* data_, int64_t numel_)
      : type(type_), data(data_), numel(numel_) {}

  template <std::ranges::contiguous_range Range>
  requires std::is_arithmetic_v<std::ranges::range_value_t<Range>> Hdf5MemoryOf(Range&& values)
      : type(kElementTypeOf<std::ranges::range_value_t<Range>>),
        data(std::ranges::data(values)),
        numel(static_cast<int64_t>(std::ranges::size(values))) {}

  template <class TensorLike>
  requires requires(const TensorLike& t) {
    t.raw();
    t.dtype();
    t.is_contiguous();
    t.shape().dims();
  }
  Hdf5MemoryOf(const TensorLike& tensor)
      : type(parse_element_type(name_of(tensor.dtype()))),
        data(tensor.raw()),
        numel(tensor.numel()),
        shape(tensor.shape().dims().begin(), tensor.shape().dims().end()),
        has_shape(true) {
    check_contiguous(tensor.is_contiguous());
  }

 private:
  static void check_contiguous(bool is_contiguous);
};
using Hdf5Memory = Hdf5MemoryOf<void>;
using Hdf5ConstMemory = Hdf5MemoryOf<const void>;

// How a dataset is stored. Scalars and empty datasets are stored in the object header whatever is
// asked.
struct Hdf5Layout {
  std::vector<int64_t> chunk =
      {};                      // elements per dimension; empty: whole rows, about kHdf5ChunkBytes
  bool has_checksum = true;    // fletcher32 of every chunk, checked by every read
  int deflate = 0;             // compression level, 0 (none) to 9
  bool is_extendible = false;  // the leading dimension grows by append
};
inline constexpr int64_t kHdf5ChunkBytes = 1 << 20;

// Chunk dimensions of about `bytes` that waste little at the borders: whole rows of the trailing
// dimensions.
std::vector<int64_t> hdf5_chunk(std::span<const int64_t> shape, ElementType type, int64_t bytes);

struct Hdf5Box {
  std::vector<int64_t> start, count;
};

// A box of a virtual dataset and where its elements are: `file` is relative to the folder of the
// virtual dataset's file.
struct Hdf5VirtualPiece {
  std::string file, dataset;
  Hdf5Box target;  // in the virtual dataset
  Hdf5Box source;  // in the source dataset
};

// A stored chunk: its first element, and its bytes in the file.
struct Hdf5Chunk {
  std::vector<int64_t> start;
  uint64_t file_offset = 0, bytes = 0;
};

class Hdf5Dataset : public Hdf5Object {
 public:
  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t numel() const;
  int64_t num_rows() const { return shape_.empty() ? 1 : shape_[0]; }
  ElementType type() const { return type_; }
  // Of each chunk, before compression; empty when the dataset is not chunked.
  const std::vector<int64_t>& chunk() const { return chunk_; }
  bool has_checksum() const { return has_checksum_; }

  // The element type must be the dataset's own and the number of elements must fit; InputError
  // otherwise.
  void read(const Hdf5Memory& into) const;
  // Rows [first_row, first_row + n), n such that `into` is filled.
  void read_rows(int64_t first_row, const Hdf5Memory& into) const;
  // The box `source` of this dataset into the box `target` of memory with shape `memory_shape`.
  void read_box(const Hdf5Box& source, const Hdf5Memory& into,
                std::span<const int64_t> memory_shape, const Hdf5Box& target) const;
  template <class T>
  std::vector<T> values() const {
    std::vector<T> result(static_cast<size_t>(numel()));
    read(result);
    return result;
  }

  void write(const Hdf5ConstMemory& from);
  void write_rows(int64_t first_row, const Hdf5ConstMemory& from);
  // Adds rows at the end of an extendible dataset. One call costs microseconds: append blocks, not
  // elements.
  void append(const Hdf5ConstMemory& from);
  // Cuts or extends (with zeros) the leading dimension of an extendible dataset.
  void resize_rows(int64_t num_rows);

  bool is_virtual() const { return is_virtual_; }
  std::vector<Hdf5VirtualPiece> virtual_pieces() const;
  std::vector<Hdf5Chunk> chunks() const;

 private:
  friend class Hdf5Group;
  Hdf5Dataset(std::shared_ptr<detail::Hdf5OpenFile> file,
              std::shared_ptr<detail::Hdf5Handle> handle, std::string name);
  void check_memory(ElementType type, int64_t numel, int64_t expected_numel) const;
  int64_t rows_in(int64_t first_row, ElementType type, int64_t numel) const;
  void read_layout();

  std::vector<int64_t> shape_, chunk_;
  ElementType type_ = ElementType::f32;
  bool has_checksum_ = false, is_virtual_ = false;
};

}  // namespace stmoe
