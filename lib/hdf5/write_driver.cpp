// SPDX-License-Identifier: Apache-2.0
// Follows the interface of HDF5's own POSIX driver (H5FDsec2.c): one descriptor, the end of the
// allocated addresses (eoa) and the end of the file (eof).
#include "lib/hdf5/write_driver.h"

#include <algorithm>
#include <cerrno>
#include <iterator>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

namespace stmoe::detail {
namespace {

// Written bytes after which the kernel is asked to start writing them to the disk.
constexpr haddr_t kWriteBackBytes = haddr_t{16} << 20;

struct DriverInfo {
  Hdf5WriteFailure* failure;
};

struct DriverFile {
  H5FD_t head;  // HDF5's part, first
  int descriptor;
  haddr_t eoa, eof;
  haddr_t unsynced_begin, unsynced_end;  // written in sequence since the last write-back
  dev_t device;
  ino_t inode;
  Hdf5WriteFailure* failure;
};

DriverFile& file_of(H5FD_t* file) { return *reinterpret_cast<DriverFile*>(file); }
const DriverFile& file_of(const H5FD_t* file) { return *reinterpret_cast<const DriverFile*>(file); }

void remember_failure(DriverFile& file, haddr_t offset) {
  if (file.failure->system_error == 0) *file.failure = {errno, offset};
}

void push_error(const char* what) {
  H5Epush2(H5E_DEFAULT, __FILE__, __func__, __LINE__, H5E_ERR_CLS, H5E_FILE, H5E_CANTOPENFILE,
           "%s: errno = %d", what, errno);
}

// False, with an error pushed, when another process (or descriptor) holds the file. A file system
// without locks is fine.
bool try_lock(int descriptor, int kind) {
  if (::flock(descriptor, kind | LOCK_NB) == 0 || errno != EWOULDBLOCK) return true;
  push_error("unable to lock file");
  return false;
}

// Replacing a file must not cut it short under another process that is writing it: lock first.
bool lock_and_truncate(int descriptor) {
  if (!try_lock(descriptor, LOCK_EX)) return false;
  if (::ftruncate(descriptor, 0) == 0) return true;
  push_error("unable to truncate file");
  return false;
}

H5FD_t* open_file(const char* name, unsigned flags, hid_t access_properties, haddr_t) {
  int mode = flags & H5F_ACC_RDWR ? O_RDWR : O_RDONLY;
  if (flags & H5F_ACC_CREAT) mode |= O_CREAT;
  if (flags & H5F_ACC_EXCL) mode |= O_EXCL;
  int descriptor = ::open(name, mode | O_CLOEXEC, 0666);
  struct stat status {};
  if (descriptor < 0) {
    push_error("unable to open file");
    return nullptr;
  }
  if (((flags & H5F_ACC_TRUNC) && !lock_and_truncate(descriptor)) ||
      ::fstat(descriptor, &status) != 0) {
    ::close(descriptor);
    return nullptr;
  }
  auto* file = new DriverFile{};
  file->descriptor = descriptor;
  file->eof = static_cast<haddr_t>(status.st_size);
  file->device = status.st_dev;
  file->inode = status.st_ino;
  file->failure = static_cast<const DriverInfo*>(H5Pget_driver_info(access_properties))->failure;
  return &file->head;
}

herr_t close_file(H5FD_t* base) {
  DriverFile* file = &file_of(base);
  if (::close(file->descriptor) != 0) remember_failure(*file, file->eof);
  delete file;
  return 0;
}

int compare_files(const H5FD_t* a, const H5FD_t* b) {
  const DriverFile &x = file_of(a), &y = file_of(b);
  if (x.device != y.device) return x.device < y.device ? -1 : 1;
  return x.inode < y.inode ? -1 : x.inode > y.inode;
}

herr_t query_features(const H5FD_t*, unsigned long* flags) {
  *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
           H5FD_FEAT_AGGREGATE_SMALLDATA | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
  return 0;
}

haddr_t get_eoa(const H5FD_t* file, H5FD_mem_t) { return file_of(file).eoa; }
haddr_t get_eof(const H5FD_t* file, H5FD_mem_t) { return file_of(file).eof; }
herr_t set_eoa(H5FD_t* file, H5FD_mem_t, haddr_t address) {
  file_of(file).eoa = address;
  return 0;
}

herr_t read_bytes(H5FD_t* base, H5FD_mem_t, hid_t, haddr_t address, size_t size, void* into) {
  DriverFile& file = file_of(base);
  char* to = static_cast<char*>(into);
  while (size > 0) {
    ssize_t got = ::pread(file.descriptor, to, size, static_cast<off_t>(address));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      push_error("file read failed");
      return -1;
    }
    if (got == 0) {  // beyond the end: zeros, as H5FDsec2.c gives
      std::fill_n(to, size, '\0');
      return 0;
    }
    to += got;
    address += static_cast<haddr_t>(got);
    size -= static_cast<size_t>(got);
  }
  return 0;
}

void start_write_back(DriverFile& file, haddr_t begin, haddr_t end) {
  if (begin != file.unsynced_end) file.unsynced_begin = begin;
  file.unsynced_end = end;
  if (end - file.unsynced_begin < kWriteBackBytes) return;
  ::sync_file_range(file.descriptor, static_cast<off_t>(file.unsynced_begin),
                    static_cast<off_t>(end - file.unsynced_begin), SYNC_FILE_RANGE_WRITE);
  file.unsynced_begin = end;
}

herr_t write_bytes(H5FD_t* base, H5FD_mem_t, hid_t, haddr_t address, size_t size,
                   const void* data) {
  DriverFile& file = file_of(base);
  const haddr_t begin = address;
  const char* from = static_cast<const char*>(data);
  file.eof = std::max(file.eof, address + size);
  while (size > 0 && file.failure->system_error == 0) {
    ssize_t put = ::pwrite(file.descriptor, from, size, static_cast<off_t>(address));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) {
      remember_failure(file, address);
      return 0;
    }
    from += put;
    address += static_cast<haddr_t>(put);
    size -= static_cast<size_t>(put);
  }
  if (size == 0) start_write_back(file, begin, address);
  return 0;
}

herr_t truncate_file(H5FD_t* base, hid_t, hbool_t) {
  DriverFile& file = file_of(base);
  if (file.eoa == file.eof) return 0;
  if (file.failure->system_error == 0 &&
      ::ftruncate(file.descriptor, static_cast<off_t>(file.eoa)) != 0)
    remember_failure(file, file.eoa);
  file.eof = file.eoa;
  return 0;
}

herr_t lock_file(H5FD_t* base, hbool_t is_writing) {
  return try_lock(file_of(base).descriptor, is_writing ? LOCK_EX : LOCK_SH) ? 0 : -1;
}

herr_t unlock_file(H5FD_t* base) {
  ::flock(file_of(base).descriptor, LOCK_UN);
  return 0;
}

H5FD_class_t make_driver() {
  H5FD_class_t driver{};
#if H5_VERSION_GE(1, 13, 0)
  driver.version = H5FD_CLASS_VERSION;
  driver.value = static_cast<H5FD_class_value_t>(600);
#endif
  driver.name = "stmoe_write";
  driver.maxaddr = (haddr_t{1} << 62) - 1;
  driver.fc_degree = H5F_CLOSE_WEAK;
  driver.fapl_size = sizeof(DriverInfo);
  driver.open = open_file;
  driver.close = close_file;
  driver.cmp = compare_files;
  driver.query = query_features;
  driver.get_eoa = get_eoa;
  driver.set_eoa = set_eoa;
  driver.get_eof = get_eof;
  driver.read = read_bytes;
  driver.write = write_bytes;
  driver.truncate = truncate_file;
  driver.lock = lock_file;
  driver.unlock = unlock_file;
  const H5FD_mem_t map[H5FD_MEM_NTYPES] = H5FD_FLMAP_DICHOTOMY;
  std::copy(std::begin(map), std::end(map), driver.fl_map);
  return driver;
}

}  // namespace

bool use_write_driver(hid_t access_properties, Hdf5WriteFailure* failure) {
  static const H5FD_class_t driver = make_driver();
  static const hid_t driver_id = H5FDregister(&driver);
  DriverInfo info{failure};
  return driver_id >= 0 && H5Pset_driver(access_properties, driver_id, &info) >= 0;
}

}  // namespace stmoe::detail
