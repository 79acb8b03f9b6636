// SPDX-License-Identifier: Apache-2.0
#include "lib/eval/corpus_loss.h"

#include <cmath>

#include "lib/autograd/tape.h"
#include "lib/base/log.h"
#include "lib/tensor/arena.h"
#include "lib/tensor/readout.h"

namespace stmoe {
namespace {

double mean_dropped_fraction(const std::vector<LayerTally>& layers) {
  double sum = 0;
  Readout readout;
  for (const LayerTally& layer : layers)
    readout.add(layer.tally.counts, [&](std::span<const double> counts) {
      sum += statistics_of(counts, 0).dropped_fraction;
    });
  readout.read();
  return layers.empty() ? 0 : sum / static_cast<double>(layers.size());
}

void add_batch(CorpusLoss& total, const EncoderDecoder& model, const Batch& on_host,
               DType compute) {
  const Batch batch = on_host.on(model.device());
  NoGradScope no_grad;
  ForwardContext context;
  context.compute = compute;
  const ModelOutputs outputs =
      model.forward_hidden({batch.encoder_tokens_BL, batch.encoder_segments_BL,
                            batch.decoder_inputs_BT, batch.decoder_segments_BT},
                           context);
  const CrossEntropySums loss = model.loss(outputs.decoder_BTD, batch.targets_BT, {}).read();
  const int64_t rows = batch.targets_BT.dim(0);
  total.dropped_fraction += static_cast<double>(rows) * mean_dropped_fraction(outputs.routing);
  total.num_sequences += rows;
  total.num_targets += loss.num_targets;
  total.cross_entropy += loss.cross_entropy;
}

}  // namespace

double CorpusLoss::loss() const { return cross_entropy / static_cast<double>(num_targets); }
double CorpusLoss::perplexity() const { return std::exp(loss()); }
std::vector<std::pair<std::string, double>> CorpusLoss::metrics() const {
  return {{"loss", loss()}, {"perplexity", perplexity()}, {"dropped_fraction", dropped_fraction}};
}

CorpusLoss corpus_loss(const EncoderDecoder& model, ValidationSource& source, DType compute) {
  CorpusLoss total;
  StepArena arena(model.device());
  while (const auto batch = source.next()) {
    ArenaStep step(arena, "evaluate");
    add_batch(total, model, *batch, compute);
    step.finish();
    if (total.num_targets > 0)
      show_progress_line(format("{} sequences  loss {:.4f}", total.num_sequences, total.loss()));
  }
  show_progress_line("");
  if (total.num_targets == 0) throw InputError("the corpus holds no text to predict");
  total.dropped_fraction /= static_cast<double>(total.num_sequences);
  return total;
}

}  // namespace stmoe
