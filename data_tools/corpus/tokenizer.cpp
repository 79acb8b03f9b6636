// SPDX-License-Identifier: Apache-2.0
#include "data_tools/corpus/tokenizer.h"

namespace stmoe {

TokenizedBlock BlockTokenizer::run(const Path& path, const TextBlock& block) const {
  TokenizedBlock result;
  result.counts.input_bytes = block.text.size();
  const ParseCounts left_out =
      parse_documents(path, block, settings_, [&](std::string_view text) { add(text, result); });
  result.counts.blank = left_out.blank;
  result.counts.invalid_utf8 = left_out.invalid_utf8;
  return result;
}

void BlockTokenizer::add(std::string_view text, TokenizedBlock& result) const {
  CleanedPage page;
  if (cleaner_) {
    page = cleaner_->clean(text);
    for (size_t i = 0; i < page.lines.size(); ++i) result.counts.lines[i] += page.lines[i];
    if (page.fate != PageFate::kept) {
      ++result.counts.pages[static_cast<size_t>(page.fate)];
      return;
    }
    text = page.text;
  }
  const std::vector<int32_t> tokens = vocabulary_.encode(text);
  if (tokens.empty()) {
    ++result.counts.without_tokens;
    return;
  }
  result.tokens.insert(result.tokens.end(), tokens.begin(), tokens.end());
  result.documents.push_back({tokens.size(), text.size(), hash128(text)});
  ++result.counts.documents;
  result.counts.tokens += tokens.size();
  result.counts.text_bytes += text.size();
}

}  // namespace stmoe
