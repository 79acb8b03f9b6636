// SPDX-License-Identifier: Apache-2.0
#include "lib/eval/corpus_loss.h"

#include <cmath>

#include <catch2/catch.hpp>

#include "lib/data/corpus.h"
#include "lib/eval/loaded_model.h"
#include "lib/eval/results.h"
#include "tests/eval/support.h"
#include "tests/support/close.h"

namespace stmoe {
namespace {

Path write_corpus(const Path& path, const Vocabulary& vocabulary) {
  CorpusWriter writer(path, vocabulary);
  int32_t next = 0;
  for (int64_t length : {40, 7, 90, 25, 130}) {
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < length; ++i) tokens.push_back(3 + 17 * next++ % 30000);
    writer.append(tokens, static_cast<uint64_t>(length));
  }
  writer.finish();
  return path;
}

// log p[target] by the softmax itself, in f64, over the rows of all batches; and the number of
// targets.
std::pair<double, int64_t> naive_cross_entropy(const LoadedModel& loaded,
                                               ValidationSource& source) {
  double total = 0;
  int64_t count = 0;
  while (const auto batch = source.next()) {
    const Tensor logits = loaded.model
                              ->forward({batch->encoder_tokens_BL, batch->encoder_segments_BL,
                                         batch->decoder_inputs_BT, batch->decoder_segments_BT},
                                        {})
                              .logits_BTV.value();
    const int64_t vocabulary = logits.dim(2);
    const auto targets = batch->targets_BT.span<int32_t>();
    for (size_t n = 0; n < targets.size(); ++n) {
      if (targets[n] == 0) continue;
      const float* row = logits.data<float>() + static_cast<int64_t>(n) * vocabulary;
      double sum = 0;
      for (int64_t v = 0; v < vocabulary; ++v) sum += std::exp(static_cast<double>(row[v]));
      total += std::log(sum) - static_cast<double>(row[targets[n]]);
      ++count;
    }
  }
  return {total, count};
}

}  // namespace

TEST_CASE("the loss on a corpus is the mean over all its targets", "[eval][perplexity]") {
  const TemporaryFolder folder;
  const LoadedModel loaded = load_model(test::save_tiny_run(folder.path(), test::tiny_recipe()));
  const Path corpus = write_corpus(folder.path() / "c.h5", loaded.vocabulary);
  ValidationSource source(loaded.recipe.data, loaded.vocabulary, corpus, 0);
  const CorpusLoss loss = corpus_loss(*loaded.model, source, DType::f32);
  source.rewind();
  const auto [cross_entropy, num_targets] = naive_cross_entropy(loaded, source);
  CHECK(loss.num_targets == num_targets);
  CHECK(loss.num_sequences > loaded.recipe.data.batch_size);
  test::require_close(loss.cross_entropy, cross_entropy, {0, 1e-5});
  test::require_close(loss.loss(), cross_entropy / static_cast<double>(num_targets), {0, 1e-5});
  test::require_close(loss.perplexity(), std::exp(loss.loss()), {0, 1e-12});
  // An untrained tied model with unit embeddings scores far from uniformly, but not absurdly.
  CHECK(loss.loss() > 5);
  CHECK(loss.loss() < 30);
}

TEST_CASE("the loss counts dropped tokens of a sparse model", "[eval][perplexity][moe]") {
  const TemporaryFolder folder;
  Recipe recipe = test::tiny_recipe();
  auto dropped = [&](const char* name) {
    const LoadedModel loaded = load_model(test::save_tiny_run(folder.path() / name, recipe));
    const Path corpus = write_corpus(folder.path() / name / "c.h5", loaded.vocabulary);
    ValidationSource source(recipe.data, loaded.vocabulary, corpus, 0);
    return corpus_loss(*loaded.model, source, DType::f32).dropped_fraction;
  };
  recipe.moe.eval_capacity_factor = 4.0;
  CHECK(dropped("roomy") == 0);
  recipe.moe.eval_capacity_factor = 0.25;
  recipe.moe.min_capacity = 1;
  // A quarter of the places for four experts: at least three quarters of the tokens have none.
  CHECK(dropped("tight") > 0.6);
  recipe.moe.encoder_sparse_layers = recipe.moe.decoder_sparse_layers = {};
  CHECK(dropped("dense") == 0);
}

TEST_CASE("results are an object for programs and a table for people", "[eval][results]") {
  const EvaluationResults results = {
      "span_corruption",
      "heldout.h5",
      12,
      {{"loss", 3.25}, {"perplexity", 25.79033991719306}, {"dropped_fraction", 0.0}},
      "runs/a/checkpoints/step-00000007",
      "0.1.0 (abc)"};
  CHECK(json_text(results) == R"json({
  "task": "span_corruption",
  "split": "heldout.h5",
  "examples": 12,
  "metrics": {
    "loss": 3.25,
    "perplexity": 25.79033991719306,
    "dropped_fraction": 0.0
  },
  "checkpoint": "runs/a/checkpoints/step-00000007",
  "decode": null,
  "version": "0.1.0 (abc)"
}
)json");
  CHECK(table_text(results) ==
        "span_corruption on heldout.h5, 12 examples\n"
        "  loss              3.2500\n"
        "  perplexity        25.7903\n"
        "  dropped_fraction  0.0000\n");
}

}  // namespace stmoe
