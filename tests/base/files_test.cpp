// SPDX-License-Identifier: Apache-2.0
#include "lib/base/files.h"

#include <csignal>
#include <fstream>

#include <catch2/catch.hpp>
#include <sys/resource.h>

#include "lib/base/error.h"
#include "tests/support/temporary_folder.h"

namespace stmoe {
namespace {

size_t num_entries(const Path& folder) {
  const auto entries = std::filesystem::directory_iterator(folder);
  return static_cast<size_t>(std::distance(begin(entries), end(entries)));
}

// Writes past `bytes` of a file fail while one of these lives, as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_;
  void (*handler_)(int);
};

}  // namespace

TEST_CASE("a file written atomically is read back whole", "[base][files]") {
  const TemporaryFolder folder;
  const Path path = folder.path() / "file";
  for (const std::string& contents :
       {std::string("text\n"), std::string(), std::string(300000, 'x') + '\0' + "end"}) {
    write_file_atomically(path, contents);
    CHECK(read_file(path) == contents);
  }
  CHECK(num_entries(folder.path()) == 1);
}

TEST_CASE("reading what is not there is an input error that names it", "[base][files]") {
  const TemporaryFolder folder;
  CHECK_THROWS_AS(read_file(folder.path() / "none"), InputError);
  CHECK_THROWS_WITH(read_file(folder.path() / "none"),
                    Catch::Contains("none: cannot be read (No such file or directory)"));
  CHECK_THROWS_WITH(read_file(folder.path()), Catch::Contains("is a directory, expected a file"));
}

TEST_CASE("writing where nothing can be written is a storage error", "[base][files]") {
  const TemporaryFolder folder;
  write_file_atomically(folder.path() / "file", "a file, not a folder");
  const Path below = folder.path() / "file" / "below";
  CHECK_THROWS_AS(write_file_atomically(below, "x"), StorageError);
  CHECK_THROWS_AS(write_file_atomically(folder.path() / "none" / "file", "x"), StorageError);
  CHECK_THROWS_AS(make_directories(below), StorageError);
  CHECK_THROWS_AS(rename_durably(folder.path() / "none", folder.path() / "b"), StorageError);
  CHECK_THROWS_AS(sync_to_disk(folder.path() / "none"), StorageError);
  CHECK_THROWS_AS(free_bytes(folder.path() / "none"), StorageError);
  CHECK_THROWS_WITH(make_directories(below), Catch::Contains("below: cannot be created") &&
                                                 Catch::Contains("check permissions"));
}

TEST_CASE("a full disk leaves the old file and no partial one", "[base][files]") {
  const TemporaryFolder folder;
  const Path path = folder.path() / "file";
  write_file_atomically(path, "old");
  {
    const FileSizeLimit limit(4096);
    CHECK_THROWS_AS(write_file_atomically(path, std::string(100000, 'x')), StorageError);
  }
  CHECK(read_file(path) == "old");
  CHECK(num_entries(folder.path()) == 1);
}

TEST_CASE("a write that cannot be put in place leaves no partial file", "[base][files]") {
  const TemporaryFolder folder;
  make_directories(folder.path() / "taken" / "inside");
  CHECK_THROWS_AS(write_file_atomically(folder.path() / "taken", "x"), StorageError);
  CHECK(num_entries(folder.path()) == 1);
}

TEST_CASE("directories are made with their parents and removed as a tree", "[base][files]") {
  const TemporaryFolder folder;
  const Path deep = folder.path() / "a" / "b" / "c";
  make_directories(deep);
  make_directories(deep);
  CHECK(std::filesystem::is_directory(deep));
  write_file_atomically(deep / "file", "x");
  rename_durably(folder.path() / "a", folder.path() / "z");
  CHECK(read_file(folder.path() / "z" / "b" / "c" / "file") == "x");
  stmoe::remove_all(folder.path() / "z");
  stmoe::remove_all(folder.path() / "z");
  CHECK(num_entries(folder.path()) == 0);
  CHECK(free_bytes(folder.path()) > 0);
}

TEST_CASE("a relative path is put in place in the current directory", "[base][files]") {
  const TemporaryFolder folder;
  const Path before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  write_file_atomically("plain", "x");
  std::filesystem::current_path(before);
  CHECK(read_file(folder.path() / "plain") == "x");
}

}  // namespace stmoe
