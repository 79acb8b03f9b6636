// SPDX-License-Identifier: Apache-2.0
// Speed of saving, loading and verifying; run with the tag [.bench]. The plain write of as many
// bytes, flushed to disk, is the yardstick.
#include <iostream>

#include <catch2/catch.hpp>

#include "lib/base/clock.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/checkpoint/verify.h"
#include "tests/checkpoint/example.h"
#include "tests/support/temporary_folder.h"

using namespace stmoe;

TEST_CASE("checkpoint speed: 105M parameters and as many optimizer values", "[.bench]") {
  CheckpointContents contents;
  for (int layer = 0; layer < 100; ++layer) {
    Tensor values = Tensor::empty({2048, 512}, DType::f32);
    for (float& value : values.span<float>())
      value = static_cast<float>(&value - values.data<float>()) * 0.37f;
    contents.weights.push_back({format("block_{}/kernel", layer), values});
    contents.optimizer.push_back({format("block_{}/kernel/m", layer), values});
  }
  const double megabytes = 200 * 2048 * 512 * 4 / 1e6;
  auto print = [&](const char* what, double seconds) {
    std::cout << format("{:<24} {:6.2f} s  {:7.0f} MB/s\n", what, seconds, megabytes / seconds);
  };
  for (int round = 0; round < 3; ++round) {
    TemporaryFolder folder;
    Stopwatch watch;
    std::string plain(static_cast<size_t>(megabytes * 1e6), 'x');
    watch.reset();
    write_file_atomically(folder / "plain", plain);
    print("plain file", watch.seconds());
    stmoe::remove_all(folder / "plain");
    plain = std::string();
    watch.reset();
    const Path saved = save_checkpoint(folder.path(), contents);
    print("save_checkpoint", watch.seconds());
    std::vector<NamedTensor> weights = blank(contents.weights),
                             optimizer = blank(contents.optimizer);
    watch.reset();
    const Checkpoint checkpoint = Checkpoint::open(saved);
    checkpoint.read_weights(weights);
    checkpoint.read_optimizer(optimizer);
    print("load (cached file)", watch.seconds());
    CHECK(same_bytes(weights, contents.weights));
    watch.reset();
    verify_checkpoint(saved);
    print("verify (cached file)", watch.seconds());
  }
}
