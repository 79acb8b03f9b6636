// SPDX-License-Identifier: Apache-2.0
#include "lib/base/files.h"

#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/error.h"

namespace stmoe {
namespace {

class FileDescriptor {
 public:
  explicit FileDescriptor(int value) : value_(value) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (value_ >= 0) ::close(value_);
  }
  int get() const { return value_; }

 private:
  int value_;
};

[[noreturn]] void throw_storage(const Path& path, const char* action, int code) {
  throw StorageError(format("{}: cannot {} ({}); check permissions and free space", path.string(),
                            action, errno_text(code)));
}

// Errors name `path`, which `temporary` is to replace.
void write_and_flush(const Path& temporary, const Path& path, std::string_view contents) {
  FileDescriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (file.get() < 0) throw_storage(path, "be written", errno);
  size_t done = 0;
  while (done < contents.size()) {
    ssize_t put = ::write(file.get(), contents.data() + done, contents.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) throw_storage(path, "be written", errno);
    done += static_cast<size_t>(put);
  }
  if (::fsync(file.get()) != 0) throw_storage(path, "be flushed to disk", errno);
}

}  // namespace

std::string read_file(const Path& path) {
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0)
    throw InputError(format("{}: cannot be read ({})", path.string(), errno_text(errno)));
  struct stat info {};
  ::fstat(file.get(), &info);
  if (S_ISDIR(info.st_mode))
    throw InputError(format("{}: is a directory, expected a file", path.string()));
  std::string contents;
  contents.reserve(static_cast<size_t>(info.st_size));
  char buffer[1 << 16];
  for (;;) {
    ssize_t got = ::read(file.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      throw InputError(format("{}: reading failed at byte {} ({})", path.string(), contents.size(),
                              errno_text(errno)));
    if (got == 0) return contents;
    contents.append(buffer, static_cast<size_t>(got));
  }
}

void write_file_atomically(const Path& path, std::string_view contents) {
  Path temporary = path;
  temporary += format(".partial-{}", ::getpid());
  try {
    write_and_flush(temporary, path, contents);
    rename_durably(temporary, path);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

void sync_to_disk(const Path& path) {
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0 || ::fsync(file.get()) != 0) throw_storage(path, "be flushed to disk", errno);
}

void make_directories(const Path& path) {
  std::error_code code;
  std::filesystem::create_directories(path, code);
  if (code) throw_storage(path, "be created as a directory", code.value());
}

void rename_durably(const Path& from, const Path& to) {
  std::error_code code;
  std::filesystem::rename(from, to, code);
  if (code) throw_storage(to, "be put in place", code.value());
  Path parent = to.parent_path();
  sync_to_disk(parent.empty() ? Path(".") : parent);
}

void remove_all(const Path& path) {
  std::error_code code;
  std::filesystem::remove_all(path, code);
  if (code) throw_storage(path, "be removed", code.value());
}

std::uintmax_t free_bytes(const Path& path) {
  std::error_code code;
  auto space = std::filesystem::space(path, code);
  if (code) throw_storage(path, "be asked for its free space", code.value());
  return space.available;
}

}  // namespace stmoe
