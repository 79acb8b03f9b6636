// SPDX-License-Identifier: Apache-2.0
#include "lib/hdf5/file.h"

#include <cerrno>

#include "lib/base/log.h"
#include "lib/hdf5/library.h"

namespace stmoe {

using detail::Hdf5Handle;
using detail::Hdf5OpenFile;
using detail::lock_hdf5;

namespace {

// Chunks that stay in memory for each open dataset.
constexpr size_t kChunkCacheBytes = size_t{16} << 20;

Hdf5Handle access_properties() {
  Hdf5Handle properties(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  // The close degree that virtual datasets use for their sources, so that a source may be open on
  // its own too. A file system without locks is no reason to refuse a file.
  if (properties.id() < 0 || H5Pset_fclose_degree(properties.id(), H5F_CLOSE_WEAK) < 0 ||
      H5Pset_libver_bounds(properties.id(), H5F_LIBVER_V110, H5F_LIBVER_LATEST) < 0 ||
      H5Pset_file_locking(properties.id(), true, true) < 0 ||
      H5Pset_cache(properties.id(), 0, 1009, kChunkCacheBytes, 0.75) < 0)
    throw BugError("hdf5: file access properties cannot be set");
  return properties;
}

std::shared_ptr<Hdf5OpenFile> new_file(const Path& path, bool is_writing) {
  auto file = std::make_shared<Hdf5OpenFile>();
  file->path = path;
  file->is_writing = is_writing;
  return file;
}

void use_driver(Hdf5OpenFile& file, const Hdf5Handle& properties) {
  if (file.is_writing && !detail::use_write_driver(properties.id(), &file.failure))
    throw BugError("hdf5: the file driver cannot be set");
}

[[noreturn]] void fail_to_open(const Path& path, Hdf5Access access) {
  detail::Hdf5Reason reason = detail::last_hdf5_reason();
  bool is_denied = reason.system_error == EACCES || reason.system_error == EROFS ||
                   reason.system_error == EWOULDBLOCK;
  if (access == Hdf5Access::read_write && is_denied)
    throw StorageError(format("{}: cannot be opened for writing ({})", path.string(), reason.text));
  throw InputError(format("{}: cannot be read ({})", path.string(), reason.text));
}

}  // namespace

Hdf5File Hdf5File::open(const Path& path, Hdf5Access access) {
  auto lock = lock_hdf5();
  std::error_code code;
  if (std::filesystem::is_directory(path, code))
    throw InputError(format("{}: is a directory, expected an HDF5 file", path.string()));
  auto file = new_file(path, access == Hdf5Access::read_write);
  Hdf5Handle properties = access_properties();
  use_driver(*file, properties);
  file->id =
      H5Fopen(path.c_str(), file->is_writing ? H5F_ACC_RDWR : H5F_ACC_RDONLY, properties.id());
  if (file->id < 0) fail_to_open(path, access);
  return Hdf5File(std::move(file));
}

Hdf5File Hdf5File::create(const Path& path) {
  auto lock = lock_hdf5();
  auto file = new_file(path, true);
  Hdf5Handle access = access_properties();
  use_driver(*file, access);
  Hdf5Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  if (H5Pset_obj_track_times(creation.id(), false) < 0)
    throw BugError("hdf5: file creation properties cannot be set");
  file->id = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.id(), access.id());
  if (file->id < 0) file->fail_writing("", "be created");
  return Hdf5File(std::move(file));
}

Hdf5File::Hdf5File(std::shared_ptr<Hdf5OpenFile> file)
    : Hdf5Group(file, std::make_shared<Hdf5Handle>(H5Gopen2(file->id, "/", H5P_DEFAULT), H5Gclose),
                "") {
  if (handle_->id() < 0) {
    H5Fclose(std::exchange(file->id, H5I_INVALID_HID));
    file->fail_reading("");
  }
}

Hdf5File::~Hdf5File() {
  if (!file_) return;
  try {
    if (file_->failure.system_error != 0)
      abandon();  // the failure was thrown already
    else
      close();
  } catch (const std::exception& error) {
    log_error("[hdf5] {}", error.what());
  }
}

Hdf5File& Hdf5File::operator=(Hdf5File&& other) noexcept {
  std::swap(file_, other.file_);  // the file that was open here goes with `other`
  std::swap(handle_, other.handle_);
  std::swap(name_, other.name_);
  return *this;
}

const Path& Hdf5File::path() const { return file_->path; }

void Hdf5File::flush() {
  auto lock = lock_hdf5();
  file_->check_open("");
  if (H5Fflush(file_->id, H5F_SCOPE_GLOBAL) < 0) file_->fail_writing("", "be flushed");
  file_->check_written("");
}

void Hdf5File::close() {
  auto lock = lock_hdf5();
  hid_t id = std::exchange(file_->id, H5I_INVALID_HID);
  if (id < 0) return;
  detail::close_objects(id);
  bool is_closed = H5Fclose(id) >= 0;
  file_->check_written("");
  if (!is_closed && file_->is_writing) file_->fail_writing("", "be closed");
  if (!is_closed) file_->fail_reading("", "be closed");
}

void Hdf5File::abandon() {
  auto lock = lock_hdf5();
  hid_t id = std::exchange(file_->id, H5I_INVALID_HID);
  if (id < 0) return;
  // What is not written yet never will be.
  if (file_->failure.system_error == 0) file_->failure.system_error = ECANCELED;
  detail::close_objects(id);
  H5Fclose(id);
}

}  // namespace stmoe
