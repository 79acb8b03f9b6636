// SPDX-License-Identifier: Apache-2.0
// Against tests/golden/span_corruption.json: seqio's trim_and_pack_dataset through
// EncDecFeatureConverter.
#include "lib/data/packing.h"

#include <nlohmann/json.hpp>

#include "tests/data/support.h"

using namespace stmoe;
using namespace stmoe::test;

namespace {

using Numbers = std::vector<int32_t>;

struct Row {
  Numbers encoder_tokens, encoder_segments, decoder_inputs, targets, decoder_segments;
  Row(size_t inputs, size_t outputs)
      : encoder_tokens(inputs, -1),
        encoder_segments(inputs, -1),
        decoder_inputs(outputs, -1),
        targets(outputs, -1),
        decoder_segments(outputs, -1) {}
  RowSpans spans() {
    return {encoder_tokens, encoder_segments, decoder_inputs, targets, decoder_segments};
  }
};

}  // namespace

TEST_CASE("examples are packed as seqio packs them", "[data][packing]") {
  const auto golden =
      nlohmann::json::parse(read_file(source_file("tests/golden/span_corruption.json")));
  REQUIRE(golden["packing"].size() >= 5);
  for (const auto& group : golden["packing"]) {
    INFO(group["name"].get<std::string>());
    const auto inputs = group["inputs_length"].get<int64_t>();
    const auto targets = group["targets_length"].get<int64_t>();
    std::vector<Row> rows;
    PackedRow open(inputs, targets);
    auto emit = [&] {
      rows.emplace_back(static_cast<size_t>(inputs), static_cast<size_t>(targets));
      open.take(rows.back().spans());
      CHECK(open.empty());
    };
    for (const auto& one : group["examples"]) {
      const Example example{one["inputs"].get<Numbers>(), one["targets"].get<Numbers>()};
      if (open.append(example)) continue;
      emit();
      REQUIRE(open.append(example));
    }
    emit();
    REQUIRE(rows.size() == group["packed"].size());
    for (size_t i = 0; i < rows.size(); ++i) {
      const auto& expected = group["packed"][i];
      INFO("row " << i);
      CHECK(rows[i].encoder_tokens == expected["encoder_tokens"].get<Numbers>());
      CHECK(rows[i].encoder_segments == expected["encoder_segment_ids"].get<Numbers>());
      CHECK(rows[i].decoder_inputs == expected["decoder_inputs"].get<Numbers>());
      CHECK(rows[i].targets == expected["targets"].get<Numbers>());
      CHECK(rows[i].decoder_segments == expected["decoder_segment_ids"].get<Numbers>());
    }
  }
}

TEST_CASE("decoder inputs start each segment from 0", "[data][packing]") {
  // The example in seqio's make_autoregressive_inputs.
  const Numbers targets{3, 8, 1, 9, 1, 5, 4, 1, 0, 0}, segments{1, 1, 1, 2, 2, 3, 3, 3, 0, 0};
  Numbers inputs(10, -1);
  shift_right(targets, segments, inputs);
  CHECK(inputs == Numbers{0, 3, 8, 0, 9, 0, 5, 4, 0, 0});
}

TEST_CASE("taking an empty row gives padding", "[data][packing]") {
  PackedRow open(4, 3);
  Row row(4, 3);
  open.take(row.spans());
  CHECK(row.encoder_tokens == Numbers(4, 0));
  CHECK(row.decoder_inputs == Numbers(3, 0));
  CHECK(row.decoder_segments == Numbers(3, 0));
}
