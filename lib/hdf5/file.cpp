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

std::shared_ptr<Hdf5OpenFile> opened(const Path& path, bool is_writing, hid_t id) {
  auto file = std::make_shared<Hdf5OpenFile>();
  file->path = path;
  file->is_writing = is_writing;
  file->id = id;
  return file;
}

[[noreturn]] void fail_to_open(const Path& path, Hdf5Access access) {
  detail::Hdf5Reason reason = detail::last_hdf5_reason();
  bool is_denied = reason.system_error == EACCES || reason.system_error == EROFS;
  if (access == Hdf5Access::read_write && is_denied)
    throw StorageError(format("{}: cannot be opened for writing ({}); check permissions",
                              path.string(), reason.text));
  throw InputError(format("{}: cannot be read ({})", path.string(), reason.text));
}

}  // namespace

Hdf5File Hdf5File::open(const Path& path, Hdf5Access access) {
  auto lock = lock_hdf5();
  std::error_code code;
  if (std::filesystem::is_directory(path, code))
    throw InputError(format("{}: is a directory, expected an HDF5 file", path.string()));
  Hdf5Handle properties = access_properties();
  unsigned flags = access == Hdf5Access::read ? H5F_ACC_RDONLY : H5F_ACC_RDWR;
  hid_t id = H5Fopen(path.c_str(), flags, properties.id());
  if (id < 0) fail_to_open(path, access);
  return Hdf5File(opened(path, access == Hdf5Access::read_write, id));
}

Hdf5File Hdf5File::create(const Path& path) {
  auto lock = lock_hdf5();
  Hdf5Handle access = access_properties();
  Hdf5Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  if (H5Pset_obj_track_times(creation.id(), false) < 0)
    throw BugError("hdf5: file creation properties cannot be set");
  hid_t id = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.id(), access.id());
  auto file = opened(path, true, id);
  if (id < 0) file->fail_writing("", "be created");
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
    close();
  } catch (const std::exception& error) {
    log_error("[hdf5] {}", error.what());
  }
}

const Path& Hdf5File::path() const { return file_->path; }

void Hdf5File::flush() {
  auto lock = lock_hdf5();
  file_->check_open("");
  if (H5Fflush(file_->id, H5F_SCOPE_GLOBAL) < 0) file_->fail_writing("", "be flushed");
}

void Hdf5File::close() {
  auto lock = lock_hdf5();
  hid_t id = std::exchange(file_->id, H5I_INVALID_HID);
  if (id < 0) return;
  herr_t flushed = file_->is_writing ? H5Fflush(id, H5F_SCOPE_GLOBAL) : 0;
  if (flushed < 0) {
    detail::Hdf5Reason reason = detail::last_hdf5_reason();
    detail::abandon_file(id);
    throw StorageError(format("{}: cannot be written ({}); check permissions and free space",
                              file_->path.string(), reason.text));
  }
  detail::close_objects(id);
  if (H5Fclose(id) < 0) file_->fail("", "be closed", file_->is_writing);
}

void Hdf5File::abandon() {
  auto lock = lock_hdf5();
  hid_t id = std::exchange(file_->id, H5I_INVALID_HID);
  if (id >= 0) detail::abandon_file(id);
}

}  // namespace stmoe
