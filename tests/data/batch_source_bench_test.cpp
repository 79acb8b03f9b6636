// SPDX-License-Identifier: Apache-2.0
// What reading packed data costs: test_data "[.bench]". Batches of 8 x (512 in + 114 out) tokens,
// as in recipes/bench/bench-switch-105m.yaml, from a corpus of 4 million tokens, taken as fast as
// their thread makes them: reading, permuting, corrupting spans, packing.
#include <cstdio>

#include <catch2/catch.hpp>

#include "lib/base/clock.h"
#include "lib/data/batch_source.h"
#include "tests/data/support.h"

namespace stmoe::test {
namespace {

TEST_CASE("time of a batch", "[.bench]") {
  constexpr int kWarmUp = 20, kBatches = 400;
  const TemporaryFolder folder;
  DataConfig config;
  config.train.emplace_back();
  config.train.back().path =
      ConfigPath(write_corpus(folder / "a.h5", std::vector<int64_t>(10000, 400)));
  config.input_length = 512;
  config.target_length = 114;
  config.batch_size = 8;
  BatchSource source(config, t5_vocabulary(), 1);
  int64_t num_tokens = 0;
  for (int i = 0; i < kWarmUp; ++i) source.next();
  const Stopwatch watch;
  for (int i = 0; i < kBatches; ++i) {
    const Batch batch = source.next();
    num_tokens += batch.num_input_tokens + batch.num_target_tokens;
  }
  const double seconds = watch.seconds();
  std::printf("%.3f ms a batch of %.0f tokens, %.2f million tokens/s\n", 1e3 * seconds / kBatches,
              static_cast<double>(num_tokens) / kBatches,
              1e-6 * static_cast<double>(num_tokens) / seconds);
}

}  // namespace
}  // namespace stmoe::test
