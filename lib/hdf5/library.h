// SPDX-License-Identifier: Apache-2.0
// Internal to this room, the only header that includes hdf5.h: the process-wide lock, handles, and
// the translation of HDF5's error stack into our errors.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include <hdf5.h>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/hdf5/element_type.h"
#include "lib/hdf5/write_driver.h"

namespace stmoe::detail {

// Held by every public function while it calls the library; also turns off HDF5's own error
// printing.
[[nodiscard]] std::unique_lock<std::recursive_mutex> lock_hdf5();

// Owns one HDF5 identifier. Closing an identifier that went with its file is harmless.
class Hdf5Handle {
 public:
  using Closer = herr_t (*)(hid_t);
  Hdf5Handle(hid_t id, Closer closer) : id_(id), closer_(closer) {}
  Hdf5Handle(Hdf5Handle&& other) noexcept
      : id_(std::exchange(other.id_, H5I_INVALID_HID)), closer_(other.closer_) {}
  Hdf5Handle& operator=(Hdf5Handle&&) = delete;
  ~Hdf5Handle() {
    if (id_ < 0) return;
    auto lock = lock_hdf5();
    closer_(id_);
  }
  hid_t id() const { return id_; }

 private:
  hid_t id_;
  Closer closer_;
};

struct Hdf5OpenFile {
  Path path;
  bool is_writing = false;
  hid_t id = H5I_INVALID_HID;
  Hdf5WriteFailure failure;

  // "corpus.h5" or "corpus.h5: tokens".
  std::string where(std::string_view object) const;
  // Throws InputError with the reason on HDF5's error stack. `action` completes "cannot ...".
  [[noreturn]] void fail_reading(std::string_view object,
                                 std::string_view action = "be read") const;
  // Throws StorageError with the failed write, or else with the reason on HDF5's error stack.
  [[noreturn]] void fail_writing(std::string_view object,
                                 std::string_view action = "be written") const;
  // Throws StorageError when a write failed. HDF5 itself is not told (write_driver.h).
  void check_written(std::string_view object) const;
  // BugError when the file is closed, or (for changes) was opened for reading.
  void check_open(std::string_view object) const;
  void check_writing(std::string_view object) const;
};

// What HDF5's error stack says, in one phrase; `system_error` is the errno in it, or 0.
struct Hdf5Reason {
  std::string text;
  int system_error = 0;
};
Hdf5Reason last_hdf5_reason();

// Closes the groups, datasets and attributes that are still open in a file, so that closing it
// really closes it.
void close_objects(hid_t file);

// A fixed-length UTF-8 string type, padded with zero bytes (HDF5 knows no empty string: one zero
// byte).
Hdf5Handle text_type(size_t bytes);
// The only string of an open attribute or scalar dataset, of fixed or variable length.
std::string read_string(hid_t id, bool is_attribute, const Hdf5OpenFile& file,
                        std::string_view place);

// Native memory type; also the file type, since this program runs on little-endian machines only.
hid_t native_type(ElementType type);

}  // namespace stmoe::detail
