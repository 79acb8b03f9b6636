// SPDX-License-Identifier: Apache-2.0
#include "lib/eval/generate.h"

#include <algorithm>
#include <istream>
#include <ostream>

#include "lib/base/log.h"
#include "lib/base/utf8.h"
#include "lib/eval/greedy.h"

namespace stmoe {
namespace {

// The line's tokens with EOS, cut to the recipe's input length.
std::vector<int32_t> input_tokens(const LoadedModel& loaded, const std::string& line) {
  std::vector<int32_t> tokens = loaded.vocabulary.encode_with_sentinels(line);
  const auto room = static_cast<size_t>(loaded.recipe.data.input_length - 1);
  if (tokens.size() > room) {
    log_warn("[generate] a line of {} tokens is cut to {} (data.input_length)", tokens.size() + 1,
             room + 1);
    tokens.resize(room);
  }
  tokens.push_back(kEosId);
  return tokens;
}

// Rows padded to the longest.
Tensor padded(const std::vector<std::vector<int32_t>>& rows) {
  size_t length = 0;
  for (const auto& row : rows) length = std::max(length, row.size());
  const auto num_rows = static_cast<int64_t>(rows.size());
  Tensor tokens_BL = Tensor::zeros({num_rows, static_cast<int64_t>(length)}, DType::i32);
  for (size_t r = 0; r < rows.size(); ++r)
    std::copy(rows[r].begin(), rows[r].end(),
              tokens_BL.span<int32_t>().begin() + static_cast<int64_t>(r * length));
  return tokens_BL;
}

}  // namespace

std::vector<std::string> generate(const LoadedModel& loaded, const std::vector<std::string>& lines,
                                  int64_t max_length) {
  if (lines.empty()) return {};
  std::vector<std::vector<int32_t>> rows;
  for (const std::string& line : lines) rows.push_back(input_tokens(loaded, line));
  std::vector<std::string> texts;
  for (const auto& tokens :
       decode_greedily(*loaded.model, padded(rows), max_length, loaded.compute())) {
    texts.push_back(loaded.vocabulary.decode(tokens));
    std::ranges::replace(texts.back(), '\n', ' ');
  }
  return texts;
}

void generate(const LoadedModel& loaded, std::istream& input, const std::string& name,
              std::ostream& output, const GenerationOptions& options) {
  const int64_t max_length =
      options.max_length > 0 ? options.max_length : loaded.recipe.data.resolved_target_length();
  std::vector<std::string> lines;
  auto flush = [&] {
    for (const std::string& text : generate(loaded, lines, max_length)) output << text << '\n';
    output.flush();
    lines.clear();
  };
  std::string line;
  for (int64_t number = 1; std::getline(input, line); ++number) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (const size_t bad = find_invalid_utf8(line); bad != std::string::npos)
      throw InputError(
          format("{}:{}: byte {} is not UTF-8; convert the text first (iconv)", name, number, bad));
    lines.push_back(line);
    if (static_cast<int64_t>(lines.size()) == options.batch_lines) flush();
  }
  flush();
}

}  // namespace stmoe
