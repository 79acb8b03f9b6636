// SPDX-License-Identifier: Apache-2.0
#include "lib/train/run_directory.h"

#include <catch2/catch.hpp>

#include "lib/checkpoint/checkpoint.h"
#include "tests/support/temporary_folder.h"

namespace stmoe::test {
namespace {

using Catch::Contains;

void save(const Path& run, int64_t step) {
  CheckpointContents contents;
  contents.step = step;
  contents.weights = {{"w", Tensor::full({3}, DType::f32, static_cast<double>(step))}};
  contents.state_json = "{}";
  make_directories(run / "checkpoints");
  save_checkpoint(run / "checkpoints", contents);
}

template <class Kind, class Body>
std::string error_of(Body&& body) {
  try {
    body();
  } catch (const Kind& error) {
    return error.what();
  }
  return "no such error";
}

}  // namespace

TEST_CASE("a run directory belongs to one process at a time", "[train][run]") {
  const TemporaryFolder folder;
  {
    const RunDirectory first(folder / "deep/run");
    CHECK(std::filesystem::is_directory(first.checkpoints()));
    CHECK_THAT(error_of<UsageError>([&] { RunDirectory second(folder / "deep/run"); }),
               Contains("deep/run") && Contains("another process"));
  }
  const RunDirectory again(folder / "deep/run");
  CHECK(again.path() == folder / "deep/run");
}

TEST_CASE("a run directory that cannot be made is a storage error", "[train][run]") {
  const TemporaryFolder folder;
  write_file_atomically(folder / "file", "");
  CHECK_THAT(error_of<StorageError>([&] { RunDirectory run(folder / "file"); }), Contains("file"));
  CHECK_THAT(error_of<StorageError>([&] { RunDirectory run(folder / "file/run"); }),
             Contains("file/run"));
}

TEST_CASE("resume auto goes on from the newest checkpoint, or from nothing", "[train][run]") {
  const TemporaryFolder folder;
  const RunDirectory run(folder / "run");
  CHECK_FALSE(run.checkpoint_to_resume("auto").has_value());
  save(run.path(), 5);
  save(run.path(), 12);
  CHECK(run.checkpoint_to_resume("auto") == run.checkpoints() / "step-00000012");
}

TEST_CASE("resume never refuses a used directory", "[train][run]") {
  const TemporaryFolder folder;
  const RunDirectory run(folder / "run");
  CHECK_FALSE(run.checkpoint_to_resume("never").has_value());
  save(run.path(), 5);
  CHECK_THAT(error_of<UsageError>([&] { run.checkpoint_to_resume("never"); }),
             Contains("--resume never") && Contains("step-00000005"));
}

TEST_CASE("resume takes another run or one checkpoint", "[train][run]") {
  const TemporaryFolder folder;
  const RunDirectory run(folder / "run");
  save(run.path(), 40);
  const Path other = folder / "other";
  save(other, 7);
  save(other, 9);
  const auto chosen = [&](const Path& named) { return run.checkpoint_to_resume(named.string()); };
  CHECK(chosen(other) == other / "checkpoints/step-00000009");
  CHECK(chosen(other / "checkpoints/step-00000007") == other / "checkpoints/step-00000007");
  make_directories(folder / "empty");
  CHECK_THAT(error_of<InputError>([&] { chosen(folder / "empty"); }),
             Contains("empty") && Contains("checkpoint"));
  CHECK_THAT(error_of<InputError>([&] { chosen(folder / "missing"); }), Contains("missing"));
}

}  // namespace stmoe::test
