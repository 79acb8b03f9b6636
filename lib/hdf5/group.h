// SPDX-License-Identifier: Apache-2.0
// Groups: named datasets, texts and groups, addressed by paths such as
// "weights/encoder/final_norm/scale".
#pragma once

#include "lib/hdf5/dataset.h"

namespace stmoe {

class Hdf5Group : public Hdf5Object {
 public:
  bool contains(std::string_view path) const;
  // Names directly below, sorted.
  std::vector<std::string> children() const;
  // Paths of all datasets below (texts too), relative to this group, sorted.
  std::vector<std::string> datasets() const;

  Hdf5Group group(std::string_view path) const;
  // Groups on the way are made as needed here and below.
  Hdf5Group create_group(std::string_view path);

  Hdf5Dataset dataset(std::string_view path) const;
  Hdf5Dataset create_dataset(std::string_view path, ElementType type,
                             std::span<const int64_t> shape, const Hdf5Layout& layout = {});
  Hdf5Dataset create_dataset(std::string_view path, ElementType type,
                             std::initializer_list<int64_t> shape, const Hdf5Layout& layout = {}) {
    return create_dataset(path, type, std::span(shape.begin(), shape.size()), layout);
  }
  // A dataset that shows the pieces of other files as one; elements without a piece, or whose file
  // is missing, read as NaN (0 for integers) in other programs.
  Hdf5Dataset create_virtual(std::string_view path, ElementType type,
                             std::span<const int64_t> shape,
                             const std::vector<Hdf5VirtualPiece>& pieces);

  // A text of any length as a scalar string dataset (UTF-8).
  void write_text(std::string_view path, std::string_view text);
  std::string read_text(std::string_view path) const;
  bool is_text(std::string_view path) const;

 protected:
  friend class Hdf5File;
  using Hdf5Object::Hdf5Object;

 private:
  std::string path_of(std::string_view path) const;
  void make_groups(std::string_view path);
};

}  // namespace stmoe
