// SPDX-License-Identifier: Apache-2.0
// HDF5 files; a file is its root group. Files are written in the format of HDF5 1.10 (checksummed
// metadata) and without times, so that equal contents give equal bytes.
#pragma once

#include "lib/base/files.h"
#include "lib/hdf5/group.h"

namespace stmoe {

enum class Hdf5Access { read, read_write };

class Hdf5File : public Hdf5Group {
 public:
  static Hdf5File open(const Path& path, Hdf5Access access = Hdf5Access::read);
  // Replaces an existing file.
  static Hdf5File create(const Path& path);

  // Closes; errors are logged. A writer calls close() first, to hear of them.
  ~Hdf5File();
  Hdf5File(Hdf5File&&) = default;
  Hdf5File& operator=(Hdf5File&& other) noexcept;

  const Path& path() const;
  // Hands everything to the operating system (not to the disk: see sync_to_disk).
  void flush();
  // Flushes and closes the file and all objects of it; throws StorageError when that fails. A
  // second call does nothing.
  void close();
  // Closes after a failure, without a word about what could not be written.
  void abandon();

 private:
  explicit Hdf5File(std::shared_ptr<detail::Hdf5OpenFile> file);
};

}  // namespace stmoe
