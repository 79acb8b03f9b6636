// SPDX-License-Identifier: Apache-2.0
// Damaged checkpoints: verify finds any changed byte of any file, loading never gives wrong values.
#include <catch2/catch.hpp>

#include "lib/base/random.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/checkpoint/verify.h"
#include "lib/hdf5/file.h"
#include "tests/checkpoint/example.h"
#include "tests/support/flip_byte.h"
#include "tests/support/temporary_folder.h"

using namespace stmoe;
using Catch::Contains;
using Catch::EndsWith;

namespace {

const std::vector<std::string> kFiles = {"checkpoint.h5", "shard-00000-of-00001.h5",
                                         "checksums.xxh128"};

std::string verify_error(const Path& checkpoint) {
  return text_of<InputError>([&] { verify_checkpoint(checkpoint); });
}

std::string load_error(const Path& checkpoint) {
  return text_of<InputError>([&] { holds_example(checkpoint, 5); });
}

// Every byte of the first 4096 with one step in `stride`, then random ones.
std::vector<uint64_t> offsets_in(const Path& file, uint64_t stride, int num_random) {
  const uint64_t size = std::filesystem::file_size(file);
  std::vector<uint64_t> offsets = {size - 1};
  for (uint64_t at = 0; at < std::min<uint64_t>(size, 4096); at += stride) offsets.push_back(at);
  RandomStream random(RandomKey{7});
  for (int i = 0; i < num_random; ++i) offsets.push_back(random.below(size));
  return offsets;
}

}  // namespace

TEST_CASE("verify reads everything in a sound checkpoint", "[checkpoint][verify]") {
  TemporaryFolder folder;
  const Path saved = save_checkpoint(folder.path(), example_contents(5));
  const VerifiedCheckpoint verified = verify_checkpoint(saved);
  CHECK(verified.num_tensors == 8);
  uintmax_t bytes = 0;
  for (const std::string& file : {kFiles[0], kFiles[1]})
    bytes += std::filesystem::file_size(saved / file);
  CHECK(static_cast<uintmax_t>(verified.bytes) == bytes);
}

TEST_CASE("verify finds a flipped bit at any place of any file", "[checkpoint][verify]") {
  TemporaryFolder folder;
  const Path saved = save_checkpoint(folder.path(), example_contents(5));
  for (const std::string& file : kFiles) {
    for (uint64_t at : offsets_in(saved / file, file == kFiles[2] ? 1 : 23, 60)) {
      flip_byte(saved / file, at, 4);
      INFO(format("{} at {}", file, at));
      CHECK_THAT(verify_error(saved), Contains(saved.string()));
      flip_byte(saved / file, at, 4);
    }
  }
  CHECK(verify_error(saved).empty());
}

TEST_CASE("loading with a flipped bit gives the right values or an error", "[checkpoint]") {
  TemporaryFolder folder;
  const Path saved = save_checkpoint(folder.path(), example_contents(5));
  for (const std::string& file : kFiles) {
    for (uint64_t at : offsets_in(saved / file, 37, 40)) {
      flip_byte(saved / file, at, 4);
      INFO(format("{} at {}", file, at));
      bool is_right = true;
      text_of<InputError>([&] { is_right = holds_example(saved, 5); });
      CHECK(is_right);
      flip_byte(saved / file, at, 4);
    }
  }
}

TEST_CASE("damage in a tensor's data is named with the tensor and the bytes",
          "[checkpoint][verify]") {
  TemporaryFolder folder;
  const Path saved = save_checkpoint(folder.path(), example_contents(5));
  const Path shard = saved / kFiles[1];
  Hdf5File file = Hdf5File::open(shard);
  std::vector<Hdf5Chunk> chunks = file.dataset("weights/shared/embedding").chunks();
  file.close();
  REQUIRE(chunks.size() == 2);
  flip_byte(shard, chunks[1].file_offset + 1000);
  CHECK_THAT(verify_error(saved),
             Contains(format("shard-00000-of-00001.h5: weights/shared/embedding: damaged in bytes "
                             "{} to {} of the file (elements from [320, 0] on)",
                             chunks[1].file_offset, chunks[1].file_offset + chunks[1].bytes)));
  CHECK_THAT(load_error(saved),
             EndsWith("shard-00000-of-00001.h5: weights/shared/embedding: cannot be read (damaged: "
                      "the checksum of a chunk does not match its data)"));
}

TEST_CASE("missing, short and foreign files are named", "[checkpoint]") {
  TemporaryFolder folder;
  const Path saved = save_checkpoint(folder.path(), example_contents(5));
  const Path shard = saved / kFiles[1];
  SECTION("missing shard") {
    stmoe::remove_all(shard);
    CHECK_THAT(load_error(saved),
               EndsWith("shard-00000-of-00001.h5: shard 1 of 1 cannot be read (No "
                        "such file or directory); bring it back or use another "
                        "checkpoint"));
    CHECK_THAT(verify_error(saved), Contains("shard-00000-of-00001.h5: missing"));
  }
  SECTION("truncated shard") {
    auto size = std::filesystem::file_size(shard);
    std::filesystem::resize_file(shard, size - 100);
    CHECK_THAT(load_error(saved),
               EndsWith(format("shard-00000-of-00001.h5: truncated or changed: {} bytes, {} "
                               "expected; use another checkpoint",
                               size - 100, size)));
    CHECK_THAT(verify_error(saved),
               Contains("shard-00000-of-00001.h5: cannot be read (truncated: "));
  }
  SECTION("truncated checkpoint.h5") {
    std::filesystem::resize_file(saved / kFiles[0], 1000);
    CHECK_THAT(load_error(saved), Contains("checkpoint.h5: damaged: its hash is "));
    CHECK_THAT(verify_error(saved), Contains("checkpoint.h5: damaged; its hash is "));
  }
  SECTION("missing checkpoint.h5") {
    stmoe::remove_all(saved / kFiles[0]);
    CHECK_THAT(load_error(saved), Contains("checkpoint.h5: cannot be read (No such file"));
    CHECK_THAT(verify_error(saved), Contains("checkpoint.h5: missing"));
  }
  SECTION("missing list of hashes") {
    stmoe::remove_all(saved / kFiles[2]);
    CHECK_THAT(load_error(saved), Contains("checksums.xxh128: cannot be read (No such file"));
  }
  SECTION("a shard of another checkpoint") {
    const Path other = save_checkpoint(folder / "other", example_contents(6));
    std::filesystem::copy_file(other / kFiles[1], shard,
                               std::filesystem::copy_options::overwrite_existing);
    CHECK_THAT(verify_error(saved), Contains("shard-00000-of-00001.h5: "));
    CHECK_THAT(load_error(saved), Contains("shard-00000-of-00001.h5: of step 6, checkpoint.h5 is "
                                           "of step 5"));
  }
  SECTION("not HDF5") {
    write_file_atomically(saved / kFiles[0], "hello");
    CHECK_THAT(load_error(saved), Contains("checkpoint.h5: damaged: its hash is "));
  }
  SECTION("not a checkpoint at all") {
    CHECK_THAT(load_error(folder.path()), Contains("is not a checkpoint (no checkpoint.h5)"));
  }
}
