// SPDX-License-Identifier: Apache-2.0
// Files that cannot be read or written: the kind of the error, and one line that names file, object
// and reason.
#include <fstream>

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "lib/base/error.h"
#include "lib/hdf5/file.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/flip_byte.h"
#include "tests/support/temporary_folder.h"

using namespace stmoe;
using Catch::Contains;
using Catch::EndsWith;

namespace {

void write_example(const Path& path) {
  Hdf5File file = Hdf5File::create(path);
  file.set_attribute("count", 3);
  file.create_dataset("group/x", ElementType::f32, {4096}, {.chunk = {1024}})
      .write(std::vector<float>(4096, 1.5f));
  file.close();
}

void replace_file(const Path& path, const std::string& contents) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << contents;
}

// The error's text; fails unless `action` throws the error kind.
template <class Kind>
std::string text_of(const auto& action) {
  try {
    action();
  } catch (const Kind& error) {
    CHECK(std::string_view(error.what()).find('\n') == std::string_view::npos);
    return error.what();
  }
  FAIL("nothing was thrown");
  return "";
}

std::string open_error(const Path& path) {
  return text_of<InputError>([&] { Hdf5File::open(path); });
}

}  // namespace

TEST_CASE("a file that is not there, not HDF5 or cut short is named with the reason", "[hdf5]") {
  TemporaryFolder folder;
  Path path = folder / "a.h5";
  CHECK_THAT(open_error(path), EndsWith("a.h5: cannot be read (No such file or directory)"));
  CHECK_THAT(open_error(folder.path()), EndsWith("is a directory, expected an HDF5 file"));
  replace_file(path, "");
  CHECK_THAT(open_error(path), EndsWith("a.h5: cannot be read (not an HDF5 file)"));
  replace_file(path, std::string(5000, 'x'));
  CHECK_THAT(open_error(path), EndsWith("a.h5: cannot be read (not an HDF5 file)"));
  write_example(path);
  std::string whole = read_file(path);
  replace_file(path, whole.substr(0, 9000));
  CHECK_THAT(
      open_error(path),
      EndsWith(format("a.h5: cannot be read (truncated: 9000 bytes, {} expected)", whole.size())));
}

TEST_CASE("a wrong object, type or shape is named with what was expected", "[hdf5]") {
  TemporaryFolder folder;
  write_example(folder / "a.h5");
  Hdf5File file = Hdf5File::open(folder / "a.h5");
  std::vector<float> short_of_one(4095);
  CHECK_THAT(text_of<InputError>([&] { file.dataset("group/y"); }),
             EndsWith("a.h5: group/y: missing"));
  CHECK_THAT(text_of<InputError>([&] { file.group("none"); }), EndsWith("a.h5: none: missing"));
  CHECK_THAT(text_of<InputError>([&] { file.dataset("group"); }), Contains("a.h5: group: "));
  CHECK_THAT(text_of<InputError>([&] { file.dataset("group/x").values<double>(); }),
             EndsWith("a.h5: group/x: element type f32, expected f64"));
  CHECK_THAT(text_of<InputError>([&] { file.dataset("group/x").read(short_of_one); }),
             EndsWith("a.h5: group/x: shape [4096], 4096 elements; expected 4095"));
  CHECK_THAT(text_of<InputError>([&] { file.read_text("group/x"); }),
             EndsWith("a.h5: group/x: is an array, expected one text"));
}

TEST_CASE("a flipped byte of a chunk fails its checksum", "[hdf5]") {
  TemporaryFolder folder;
  Path path = folder / "a.h5";
  write_example(path);
  Hdf5File file = Hdf5File::open(path);
  std::vector<Hdf5Chunk> chunks = file.dataset("group/x").chunks();
  file.close();
  REQUIRE(chunks.size() == 4);
  for (const Hdf5Chunk& chunk : chunks) {
    for (uint64_t at : {uint64_t{0}, chunk.bytes / 2, chunk.bytes - 1}) {
      flip_byte(path, chunk.file_offset + at, 1);
      Hdf5File reader = Hdf5File::open(path);
      CHECK_THAT(text_of<InputError>([&] { reader.dataset("group/x").values<float>(); }),
                 EndsWith("a.h5: group/x: cannot be read (damaged: the checksum of a chunk does "
                          "not match its data)"));
      reader.close();
      flip_byte(path, chunk.file_offset + at, 1);
    }
  }
}

TEST_CASE("a flipped byte of the file's metadata never gives wrong values", "[hdf5]") {
  TemporaryFolder folder;
  Path path = folder / "a.h5";
  write_example(path);
  const std::vector<float> right(4096, 1.5f);
  int num_refused = 0;
  for (size_t at = 0; at < 2048; ++at) {
    flip_byte(path, at, 0x10);
    try {
      Hdf5File reader = Hdf5File::open(path);
      bool is_right = reader.dataset("group/x").values<float>() == right;
      REQUIRE(is_right);
    } catch (const InputError&) {
      ++num_refused;
    }
    flip_byte(path, at, 0x10);
  }
  CHECK(num_refused > 100);
}

TEST_CASE("a place that cannot be written is a storage error", "[hdf5]") {
  TemporaryFolder folder;
  replace_file(folder / "file", "x");
  CHECK_THAT(text_of<StorageError>([&] { Hdf5File::create(folder / "file/a.h5"); }),
             EndsWith("file/a.h5: cannot be created (Not a directory); check permissions and free "
                      "space"));
  CHECK_THROWS_AS(Hdf5File::create(folder / "none/a.h5"), StorageError);
}

TEST_CASE("a full disk at any moment is one storage error, and the library goes on", "[hdf5]") {
  TemporaryFolder folder;
  const Path path = folder / "a.h5";
  write_example(path);
  const size_t size = read_file(path).size();
  for (size_t limit : {size_t{0}, size_t{1}, size_t{100}, size_t{2048}, size_t{5000}, size_t{9000},
                       size / 2, size - 1}) {
    {
      FileSizeLimit full(limit);
      CHECK_THAT(text_of<StorageError>([&] { write_example(path); }),
                 Contains("a.h5: ") && Contains("cannot be written at byte ") &&
                     EndsWith("(File too large); check permissions and free space"));
    }
    write_example(path);  // there is room again
    CHECK(Hdf5File::open(path).dataset("group/x").values<float>()[4095] == 1.5f);
  }
}

TEST_CASE("a file that another process is writing is left alone", "[hdf5]") {
  TemporaryFolder folder;
  const Path path = folder / "a.h5";
  write_example(path);
  const std::string whole = read_file(path);
  const int other =
      ::open(path.c_str(), O_RDWR);  // a lock of another description: as another process
  REQUIRE(::flock(other, LOCK_EX) == 0);
  CHECK_THAT(text_of<StorageError>([&] { Hdf5File::create(path); }),
             Contains("a.h5: cannot be created (another process has the file open)"));
  CHECK_THAT(text_of<StorageError>([&] { Hdf5File::open(path, Hdf5Access::read_write); }),
             EndsWith("a.h5: cannot be opened for writing (another process has the file open)"));
  CHECK_THAT(text_of<InputError>([&] { Hdf5File::open(path); }),
             EndsWith("a.h5: cannot be read (another process has the file open)"));
  ::close(other);
  bool is_untouched = read_file(path) == whole;
  CHECK(is_untouched);
  CHECK_NOTHROW(Hdf5File::open(path, Hdf5Access::read_write));
}

TEST_CASE("an abandoned file closes without a word", "[hdf5]") {
  TemporaryFolder folder;
  FileSizeLimit full(100);
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  Hdf5Dataset dataset = file.create_dataset("x", ElementType::f32, {4096}, {.chunk = {1024}});
  CHECK_THROWS_AS((dataset.write(std::vector<float>(4096)), file.flush()), StorageError);
  CHECK_NOTHROW(file.abandon());
}
