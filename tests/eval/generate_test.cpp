// SPDX-License-Identifier: Apache-2.0
#include "lib/eval/generate.h"

#include <sstream>

#include <catch2/catch.hpp>

#include "tests/eval/support.h"

namespace stmoe {
namespace {

// The whole forward pass again for every token.
std::string generate_naively(const LoadedModel& loaded, const std::string& line,
                             int64_t max_length) {
  std::vector<int32_t> tokens = loaded.vocabulary.encode_with_sentinels(line);
  tokens.push_back(kEosId);
  const Tensor tokens_1L = Tensor::from({1, static_cast<int64_t>(tokens.size())}, tokens);
  std::vector<int32_t> inputs = {0};
  ForwardContext context;
  context.is_dropless = true;
  while (static_cast<int64_t>(inputs.size()) <= max_length) {
    const auto length = static_cast<int64_t>(inputs.size());
    const Tensor logits =
        loaded.model
            ->forward({tokens_1L, Tensor(), Tensor::from({1, length}, inputs), Tensor()}, context)
            .logits_BTV.value();
    const auto last = logits.slice(1, length - 1, length).span<float>();
    const auto best = static_cast<int32_t>(std::ranges::max_element(last) - last.begin());
    if (best == kEosId) break;
    inputs.push_back(best);
  }
  inputs.erase(inputs.begin());
  return loaded.vocabulary.decode(inputs);
}

LoadedModel tiny_model(const TemporaryFolder& folder) {
  return load_model(test::save_tiny_run(folder.path(), test::tiny_recipe()));
}

}  // namespace

TEST_CASE("each line gets the line that the whole forward pass would choose", "[eval][generate]") {
  const TemporaryFolder folder;
  const LoadedModel loaded = tiny_model(folder);
  const std::vector<std::string> lines = {"The <extra_id_0> is warm.", "",
                                          "One, two, three, four, five, six and <extra_id_0>."};
  const auto texts = generate(loaded, lines, 8);
  REQUIRE(texts.size() == lines.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    CHECK(texts[i] == generate_naively(loaded, lines[i], 8));
    CHECK(generate(loaded, {lines[i]}, 8)[0] == texts[i]);
  }
  CHECK(texts[0] != texts[2]);
}

TEST_CASE("a stream is answered line by line, whatever the batch", "[eval][generate]") {
  const TemporaryFolder folder;
  const LoadedModel loaded = tiny_model(folder);
  const std::string input = "Good morning.\r\nA <extra_id_0>.\n\nThe end";
  std::string outputs[2];
  for (int64_t batch_lines : {1, 3}) {
    std::istringstream in(input);
    std::ostringstream out;
    generate(loaded, in, "lines.txt", out, {.max_length = 6, .batch_lines = batch_lines});
    outputs[batch_lines == 3] = out.str();
  }
  CHECK(outputs[0] == outputs[1]);
  CHECK(std::ranges::count(outputs[0], '\n') == 4);
  std::istringstream in("\n");
  std::ostringstream out;
  generate(loaded, in, "lines.txt", out, {.max_length = 6, .batch_lines = 16});
  CHECK(std::ranges::count(out.str(), '\n') == 1);
}

TEST_CASE("a line longer than the recipe's input is cut", "[eval][generate]") {
  const TemporaryFolder folder;
  const LoadedModel loaded = tiny_model(folder);
  std::string words;
  for (int i = 0; i < 100; ++i) words += "water ";
  // 31 tokens and EOS are what the recipe's length of 32 leaves.
  std::string kept;
  for (int i = 0; i < 31; ++i) kept += "water ";
  CHECK(generate(loaded, {words}, 6) == generate(loaded, {kept}, 6));
}

TEST_CASE("a line that is not UTF-8 is named", "[eval][generate]") {
  const TemporaryFolder folder;
  const LoadedModel loaded = tiny_model(folder);
  std::istringstream in("fine\nbad \xff here\n");
  std::ostringstream out;
  try {
    generate(loaded, in, "lines.txt", out, {.max_length = 2, .batch_lines = 16});
    FAIL("no error");
  } catch (const InputError& error) {
    CHECK_THAT(error.what(), Catch::Contains("lines.txt:2: byte 4 is not UTF-8"));
  }
}

}  // namespace stmoe
