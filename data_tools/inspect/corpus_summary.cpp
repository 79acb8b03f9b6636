// SPDX-License-Identifier: Apache-2.0
#include "data_tools/inspect/corpus_summary.h"

#include <algorithm>
#include <cmath>

#include "data_tools/progress.h"
#include "lib/base/error.h"

namespace stmoe {
namespace {

constexpr uint64_t kTokensAtOnce = 1 << 20, kDocumentsAtOnce = 1 << 16;

std::vector<uint64_t> count_tokens(const Corpus& corpus) {
  std::vector<uint64_t> counts(static_cast<size_t>(corpus.vocabulary_size()), 0);
  std::vector<int32_t> tokens;
  Progress progress("reading", 2 * corpus.num_tokens());
  for (uint64_t begin = 0; begin < corpus.num_tokens(); begin += kTokensAtOnce) {
    const uint64_t end = std::min(begin + kTokensAtOnce, corpus.num_tokens());
    tokens.clear();
    corpus.read({begin, end}, tokens);
    for (int32_t token : tokens) ++counts[static_cast<size_t>(token)];
    progress.show(2 * end);
  }
  return counts;
}

std::vector<uint64_t> document_lengths(const Corpus& corpus) {
  std::vector<uint64_t> lengths;
  lengths.reserve(corpus.num_documents());
  uint64_t begin = 0;
  for (uint64_t first = 0; first < corpus.num_documents(); first += kDocumentsAtOnce) {
    const uint64_t count = std::min(kDocumentsAtOnce, corpus.num_documents() - first);
    for (uint64_t end : corpus.document_ends(first, count)) {
      if (end < begin || end > corpus.num_tokens())
        throw InputError(
            format("{}: document_ends: document {} ends at token {}, before token {}; "
                   "the file is damaged, pack the text again",
                   corpus.path().string(), lengths.size(), end, begin));
      lengths.push_back(end - begin);
      begin = end;
    }
  }
  return lengths;
}

}  // namespace

CorpusSummary summarize(const Corpus& corpus) {
  CorpusSummary summary;
  summary.documents = corpus.num_documents();
  summary.tokens = corpus.num_tokens();
  summary.text_bytes = corpus.text_bytes();
  const double total = static_cast<double>(summary.tokens);
  const auto counts = count_tokens(corpus);
  for (uint64_t count : counts)
    if (count > 0) {
      const double p = static_cast<double>(count) / total;
      summary.unigram_entropy -= p * std::log(p);
      ++summary.distinct_tokens;
    }
  summary.unknown_fraction = static_cast<double>(counts[kUnkId]) / total;

  auto lengths = document_lengths(corpus);
  std::sort(lengths.begin(), lengths.end());
  summary.shortest = lengths.front();
  summary.median = lengths[lengths.size() / 2];
  summary.percentile_90 = lengths[lengths.size() * 9 / 10];
  summary.longest = lengths.back();
  summary.mean_length = total / static_cast<double>(summary.documents);
  return summary;
}

}  // namespace stmoe
