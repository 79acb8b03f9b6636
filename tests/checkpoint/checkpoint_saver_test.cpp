// SPDX-License-Identifier: Apache-2.0
// Checkpoints saved while training goes on: the bytes of when the save began, failures told.
#include "lib/checkpoint/checkpoint_saver.h"

#include <catch2/catch.hpp>

#include "tests/checkpoint/example.h"
#include "tests/support/temporary_folder.h"

using namespace stmoe;

namespace {

// The example's tensors on a device; what has no elements stays on the host, as other numbers may.
CheckpointContents example_on(Device device, int64_t step) {
  CheckpointContents contents = example_contents(step);
  for (auto* list : {&contents.weights, &contents.optimizer})
    for (NamedTensor& one : *list)
      if (one.tensor.numel() > 0) one.tensor = one.tensor.on(device);
  return contents;
}

void overwrite(const CheckpointContents& contents) {
  for (const auto* list : {&contents.weights, &contents.optimizer})
    for (const NamedTensor& one : *list) one.tensor.fill(7);
}

}  // namespace

TEST_CASE("a checkpoint saved beside training has the bytes of when the save began",
          "[checkpoint][emu]") {
  for (const Device device : {Device::cpu, Device::emu}) {
    TemporaryFolder folder;
    std::vector<Path> saved;
    CheckpointSaver saver([&](const Path& path) { saved.push_back(path); });
    saver.wait_until_read();  // nothing yet
    for (const int64_t step : {5, 6}) {
      const CheckpointContents contents = example_on(device, step);
      saver.start(folder / "checkpoints", contents);
      saver.wait_until_read();
      overwrite(contents);
      saver.poll();
    }
    saver.finish();
    REQUIRE(saved.size() == 2);
    CHECK(holds_example(saved[0], 5));
    CHECK(holds_example(saved[1], 6));
    saver.finish();
    CHECK(saved.size() == 2);
  }
}

TEST_CASE("both halves of a split weight travel", "[checkpoint][weights][emu]") {
  TemporaryFolder folder;
  const Tensor values = ramp_tensor({5, 31}, DType::f32, 0.1);
  const WeightTensor weight = WeightTensor::persistent({5, 31}, WeightStorage::split, Device::emu);
  weight.assign(values);
  CheckpointContents contents = example_contents(5);
  contents.weights = {{"w", weight.value, weight.storage, weight.low}};
  Path saved;
  CheckpointSaver saver([&](const Path& path) { saved = path; });
  saver.start(folder / "checkpoints", contents);
  saver.wait_until_read();
  weight.assign(Tensor::zeros({5, 31}, DType::f32));
  saver.finish();
  const Tensor read = Tensor::zeros({5, 31}, DType::f32);
  Checkpoint::open(saved).read_weights({{"w", read}});
  CHECK(same_bytes({{"w", read}}, {{"w", values}}));
}

TEST_CASE("a save that failed is told by whoever asks next", "[checkpoint][emu]") {
  TemporaryFolder folder;
  write_file_atomically(folder / "checkpoints", "a file where a directory should be\n");
  int saved = 0;
  CheckpointSaver saver([&](const Path&) { ++saved; });
  CHECK_THROWS_AS(saver.start(folder / "checkpoints", example_on(Device::cpu, 5)), StorageError);
  saver.start(folder / "checkpoints", example_on(Device::emu, 5));
  CHECK_THROWS_AS(saver.finish(), StorageError);
  CHECK_NOTHROW(saver.finish());
  saver.start(folder / "elsewhere", example_on(Device::emu, 6));
  saver.finish();
  CHECK(saved == 1);
}
