// SPDX-License-Identifier: Apache-2.0
// Saving and loading: exact bytes, the names on disk, another model's checkpoint, a disk that is
// full or cannot be written.
#include <catch2/catch.hpp>

#include "lib/base/log.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/checkpoint/verify.h"
#include "lib/hdf5/file.h"
#include "tests/checkpoint/example.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/temporary_folder.h"

using namespace stmoe;
using Catch::Contains;
using Catch::EndsWith;

namespace {

std::vector<std::string> names_in(const Path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

TEST_CASE("a checkpoint gives back every tensor and text bit by bit", "[checkpoint]") {
  TemporaryFolder folder;
  const Path saved = save_checkpoint(folder / "checkpoints", example_contents(500));
  CHECK(saved == folder / "checkpoints/step-00000500");
  CHECK(holds_example(saved, 500));
  const Checkpoint checkpoint = Checkpoint::open(saved);
  REQUIRE(checkpoint.tensors().size() == 8);
  CHECK(checkpoint.tensors()[0].name == "optimizer/count");
  CHECK(checkpoint.tensors()[7].name == "weights/shared/embedding");
  CHECK(checkpoint.tensors()[7].shape == Shape{640, 512});
  Tensor one = Tensor::empty({8, 3}, DType::bf16);
  checkpoint.read("weights/decoder/logits/kernel", one);
  CHECK(same_bytes({{"", one}}, {{"", example_contents(500).weights[2].tensor}}));
}

TEST_CASE("the directory has the names of the contract and nothing else", "[checkpoint]") {
  TemporaryFolder folder;
  const Path checkpoints = folder / "a/checkpoints";
  save_checkpoint(checkpoints, example_contents(20));
  save_checkpoint(checkpoints, example_contents(100000000));
  CHECK(names_in(checkpoints) ==
        std::vector<std::string>{"latest", "step-00000020", "step-100000000"});
  CHECK(read_file(checkpoints / "latest") == "step-100000000\n");
  CHECK(names_in(checkpoints / "step-00000020") ==
        std::vector<std::string>{"checkpoint.h5", "checksums.xxh128", "shard-00000-of-00001.h5"});
}

TEST_CASE("checkpoint.h5 alone shows every tensor whole, also after a move", "[checkpoint]") {
  TemporaryFolder folder;
  save_checkpoint(folder / "run/checkpoints", example_contents(3));
  rename_durably(folder / "run", folder / "moved");
  Hdf5File file = Hdf5File::open(folder / "moved/checkpoints/step-00000003/checkpoint.h5");
  const CheckpointContents expected = example_contents(3);
  for (const auto& [group, tensors] :
       {std::pair("weights", &expected.weights), std::pair("optimizer", &expected.optimizer)}) {
    for (const NamedTensor& named : *tensors) {
      Tensor read = Tensor::empty(named.tensor.shape(), named.tensor.dtype());
      file.dataset(format("{}/{}", group, named.name)).read(read);
      CHECK(same_bytes({{named.name, read}}, {named}));
    }
  }
  CHECK(file.integer_attribute("step") == 3);
  CHECK(file.integer_attribute("num_tensors") == 8);
  CHECK(file.read_text("recipe") == expected.recipe_yaml);
}

TEST_CASE("weights in two halves are saved as the f32 they are, and read into any storage",
          "[checkpoint][weights]") {
  TemporaryFolder folder;
  const Tensor values = ramp_tensor({5, 31}, DType::f32, 0.1);
  const auto stored = [&](WeightStorage storage) {
    const WeightTensor weight = WeightTensor::persistent({5, 31}, storage, Device::cpu);
    return NamedTensor{"w", weight.value, storage, weight.low};
  };
  CheckpointContents contents = example_contents(1);
  contents.weights = {stored(WeightStorage::split)};
  WeightTensor::of(contents.weights[0]).assign(values);
  const Checkpoint checkpoint = Checkpoint::open(save_checkpoint(folder.path(), contents));
  for (WeightStorage storage :
       {WeightStorage::f32, WeightStorage::split, WeightStorage::bf16_stochastic}) {
    const NamedTensor into = stored(storage);
    checkpoint.read_weights({into});
    const Tensor expected =
        storage == WeightStorage::bf16_stochastic ? values.to(DType::bf16).to(DType::f32) : values;
    CHECK(same_bytes({{"w", WeightTensor::of(into).on_host()}}, {{"w", expected}}));
  }
}

TEST_CASE("views that are not contiguous are saved in their own order", "[checkpoint]") {
  TemporaryFolder folder;
  CheckpointContents contents = example_contents(1);
  Tensor base = ramp_tensor({4, 6}, DType::f32, 0);
  contents.weights = {{"turned", base.transpose(0, 1)}};
  const Path saved = save_checkpoint(folder.path(), contents);
  Tensor read = Tensor::empty({6, 4}, DType::f32);
  Checkpoint::open(saved).read("weights/turned", read);
  CHECK(same_bytes({{"", read}}, {{"", base.transpose(0, 1).contiguous()}}));
}

TEST_CASE("equal contents give equal files", "[checkpoint]") {
  TemporaryFolder folder;
  const Path a = save_checkpoint(folder / "a", example_contents(7));
  const Path b = save_checkpoint(folder / "b", example_contents(7));
  for (const std::string& name : names_in(a)) {
    bool is_same = read_file(a / name) == read_file(b / name);
    CHECK(is_same);
  }
}

TEST_CASE("saving a step again replaces its checkpoint", "[checkpoint]") {
  TemporaryFolder folder;
  CheckpointContents contents = example_contents(7);
  contents.weights[0].tensor = Tensor::zeros({640, 512}, DType::f32);
  const Path saved = save_checkpoint(folder.path(), contents);
  CHECK_FALSE(holds_example(saved, 7));
  CHECK(save_checkpoint(folder.path(), example_contents(7)) == saved);
  CHECK(holds_example(saved, 7));
  CHECK(names_in(folder.path()) == std::vector<std::string>{"latest", "step-00000007"});
}

TEST_CASE("a checkpoint of another model is refused before anything is read", "[checkpoint]") {
  TemporaryFolder folder;
  const Checkpoint checkpoint =
      Checkpoint::open(save_checkpoint(folder.path(), example_contents(1)));
  std::vector<NamedTensor> weights = blank(example_contents(1).weights);
  SECTION("other shape") {
    weights[2].tensor = Tensor::zeros({8, 4}, DType::bf16);
    CHECK_THAT(text_of<InputError>([&] { checkpoint.read_weights(weights); }),
               EndsWith("checkpoint.h5: weights/decoder/logits/kernel: shape [8, 3], the recipe "
                        "needs [8, 4]; change the recipe or use another checkpoint"));
  }
  SECTION("other element type") {
    weights[1].tensor = Tensor::zeros({512}, DType::bf16);
    CHECK_THAT(
        text_of<InputError>([&] { checkpoint.read_weights(weights); }),
        Contains("weights/encoder/final_norm/scale: element type f32, the recipe needs bf16"));
  }
  SECTION("other names") {
    weights[3].name = "encoder/block_1/feed_forward/wi/kernel";
    CHECK_THAT(
        text_of<InputError>([&] { checkpoint.read_weights(weights); }),
        EndsWith("checkpoint.h5: of another model; missing tensors that the recipe needs: 1 "
                 "(weights/encoder/block_1/feed_forward/wi/kernel); tensors that the recipe does "
                 "not have: 1 (weights/encoder/block_1/moe/experts/wi/kernel); change the recipe "
                 "or use another checkpoint"));
  }
  SECTION("another optimizer") {
    CHECK_THAT(text_of<InputError>([&] { checkpoint.read_optimizer({}); }),
               Contains("checkpoint.h5: of another optimizer; tensors that the recipe does not "
                        "have: 4 (optimizer/count, optimizer/mask, "));
  }
  bool is_untouched = same_bytes({weights[0]}, {blank(example_contents(1).weights)[0]});
  CHECK(is_untouched);
}

TEST_CASE("a disk that fills up at any moment costs no complete checkpoint", "[checkpoint]") {
  TemporaryFolder folder;
  // The last file to be written in full must be the largest for some limits, so texts are long too.
  CheckpointContents contents = example_contents(2);
  contents.recipe_yaml = std::string(4 << 20, '#');
  const Path saved = save_checkpoint(folder.path(), example_contents(1));
  for (rlim_t limit : {0u, 50u, 100u, 5000u, 400000u, 1200000u, 1400000u, 3000000u, 4190000u}) {
    std::string text;
    {
      FileSizeLimit full(limit);
      text = text_of<StorageError>([&] { save_checkpoint(folder.path(), contents); });
    }
    CHECK_THAT(text,
               Contains("File too large") &&
                   EndsWith(format("; the last complete checkpoint, {}, is kept", saved.string())));
    CHECK(names_in(folder.path()) == std::vector<std::string>{"latest", "step-00000001"});
    CHECK(newest_checkpoint(folder.path()) == saved);
  }
  CHECK(verify_checkpoint(saved).num_tensors == 8);
  CHECK_NOTHROW(save_checkpoint(folder.path(), contents));
}

TEST_CASE("too little room is told before anything is written, with the size", "[checkpoint]") {
  TemporaryFolder folder;
  CheckpointContents contents = example_contents(1);
  Tensor shared = Tensor::zeros({1 << 20}, DType::f32);
  auto count = static_cast<int64_t>(free_bytes(folder.path()) / shared.bytes() + 1);
  contents.weights.clear();
  for (int64_t i = 0; i < count; ++i) contents.weights.push_back({format("w{}", i), shared});
  std::string text = text_of<StorageError>([&] { save_checkpoint(folder.path(), contents); });
  CHECK_THAT(text, Contains("no room for the checkpoint of step 1: it needs ") &&
                       EndsWith("lower checkpoint.keep_last; there is no complete checkpoint yet"));
  CHECK(names_in(folder.path()).empty());
}

TEST_CASE("a place that cannot be written is a storage error", "[checkpoint]") {
  TemporaryFolder folder;
  write_file_atomically(folder / "file", "x");
  std::string text =
      text_of<StorageError>([&] { save_checkpoint(folder / "file/run", example_contents(1)); });
  CHECK_THAT(text, Contains("file/run: cannot be created as a directory (Not a directory)"));
}
