// SPDX-License-Identifier: Apache-2.0
// What groups and datasets share: a place in a file, and attributes. Objects are cheap to copy
// (they share the handle) and become unusable when their file is closed.
//
// Errors of this room: reading throws InputError (missing, not HDF5, truncated, a checksum that
// does not match, wrong type or shape), writing throws StorageError (no room, no permission); both
// name file, object and reason in one line. Threads: the HDF5 library is not thread-safe, so every
// function here holds one process-wide mutex while it runs. Any thread may use its own files at any
// time; two threads must not share one object.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace stmoe {

namespace detail {
struct Hdf5OpenFile;
class Hdf5Handle;
}  // namespace detail

class Hdf5Object {
 public:
  // The path inside the file, without the leading slash; empty for the root group.
  const std::string& name() const { return name_; }
  // "runs/a/corpus.h5: tokens", as error messages begin.
  std::string where() const;

  bool has_attribute(std::string_view name) const;
  std::vector<std::string> attribute_names() const;
  // Missing or of another kind: InputError.
  std::string string_attribute(std::string_view name) const;
  int64_t integer_attribute(std::string_view name) const;
  double number_attribute(std::string_view name) const;  // integers are numbers too

  // Replaces an attribute of that name. At most 64 KB; longer texts are datasets
  // (Hdf5Group::write_text).
  void set_attribute(std::string_view name, std::string_view text);
  void set_attribute(std::string_view name, const char* text) {
    set_attribute(name, std::string_view(text));
  }
  template <std::integral T>
  void set_attribute(std::string_view name, T value) {
    set_integer_attribute(name, static_cast<int64_t>(value));
  }
  template <std::floating_point T>
  void set_attribute(std::string_view name, T value) {
    set_number_attribute(name, static_cast<double>(value));
  }

 protected:
  Hdf5Object(std::shared_ptr<detail::Hdf5OpenFile> file, std::shared_ptr<detail::Hdf5Handle> handle,
             std::string name);
  int64_t id() const;
  void set_integer_attribute(std::string_view name, int64_t value);
  void set_number_attribute(std::string_view name, double value);

  std::shared_ptr<detail::Hdf5OpenFile> file_;
  std::shared_ptr<detail::Hdf5Handle> handle_;
  std::string name_;
};

}  // namespace stmoe
