// SPDX-License-Identifier: Apache-2.0
// Internal to this room: the HDF5 file driver through which files are written. HDF5 1.10 leaks, and
// later crashes, when a write fails while a file is flushed or closed. This driver therefore never
// tells HDF5: it remembers the first failure for our functions to throw, and drops every write
// after it. It also starts the kernel's write-back early, so that the flush to disk at the end
// finds little left to do.
#pragma once

#include <cstdint>

#include <hdf5.h>

namespace stmoe::detail {

// The first failed write of a file; lives as long as the file is open.
struct Hdf5WriteFailure {
  int system_error = 0;  // errno, 0: none
  uint64_t file_offset = 0;
};

// Makes files opened with `access_properties` use the driver and report to `failure`. False when
// HDF5 refuses.
bool use_write_driver(hid_t access_properties, Hdf5WriteFailure* failure);

}  // namespace stmoe::detail
