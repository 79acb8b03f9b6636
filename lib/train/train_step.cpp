// SPDX-License-Identifier: Apache-2.0
#include "lib/train/train_step.h"

#include "lib/autograd/tape.h"
#include "lib/ops/add.h"

namespace stmoe {
namespace {

Tensor rows(const Tensor& tensor, int64_t begin, int64_t end) {
  return tensor.defined() ? tensor.slice(0, begin, end) : tensor;
}

ModelInputs inputs_of(const Batch& batch, int64_t begin, int64_t end) {
  return {rows(batch.encoder_tokens_BL, begin, end), rows(batch.encoder_segments_BL, begin, end),
          rows(batch.decoder_inputs_BT, begin, end), rows(batch.decoder_segments_BT, begin, end)};
}

using Values = std::span<const double>;

// Reads one number into `sum`, `share` times.
void add_number(Readout& readout, const Var& value, double& sum, double share = 1) {
  readout.add(value.value(), [&sum, share](Values values) { sum += share * values[0]; });
}

// What a micro-batch of `share` of the rows says about routing.
void add_routing(StepReadings& readings, const ModelOutputs& outputs, double share) {
  if (outputs.routing.empty()) return;
  StepLosses& losses = readings.losses;
  add_number(readings.readout, outputs.load_balance_loss, losses.load_balance_loss, share);
  add_number(readings.readout, outputs.router_z_loss, losses.router_z_loss, share);
  const double per_layer = share / static_cast<double>(outputs.routing.size());
  losses.layers.resize(outputs.routing.size());
  for (size_t l = 0; l < outputs.routing.size(); ++l) {
    const auto& [name, tally] = outputs.routing[l];
    losses.layers[l].name = name;
    readings.readout.add(tally.counts, [&losses, l, share, per_layer](Values counts) {
      const RoutingStatistics statistics = statistics_of(counts, 0);
      losses.dropped_fraction += per_layer * statistics.dropped_fraction;
      add_scaled(losses.layers[l].statistics, statistics, share);
    });
    if (!tally.entropy.defined()) continue;
    readings.readout.add(tally.entropy, [&losses, l, share, per_layer](Values entropy) {
      losses.router_entropy += per_layer * entropy[0];
      losses.layers[l].statistics.entropy += share * entropy[0];
    });
  }
}

void add_language(StepReadings& readings, const CrossEntropy& loss) {
  readings.readout.add(loss.sums, [&losses = readings.losses](Values values) {
    const CrossEntropySums sums = sums_from(values);
    losses.cross_entropy += sums.cross_entropy;
    losses.target_tokens += sums.num_targets;
    losses.correct_tokens += sums.num_correct;
  });
}

// What is minimised: the language loss and the losses of the layers, those of a micro-batch of
// `share` of the rows.
Var total_loss(const Recipe& recipe, const ModelOutputs& outputs, const Var& language,
               double language_factor, double share) {
  std::vector<Var> terms = {language};
  std::vector<double> coefficients = {language_factor};
  if (!outputs.routing.empty()) {
    terms.insert(terms.end(), {outputs.load_balance_loss, outputs.router_z_loss});
    coefficients.insert(coefficients.end(), {recipe.moe.load_balance_loss.value() * share,
                                             recipe.moe.router_z_loss.value() * share});
  }
  if (outputs.attention_z_loss.defined()) {
    terms.push_back(outputs.attention_z_loss);
    coefficients.push_back(recipe.model.attention_z_loss * share);
  }
  return weighted_sum(terms, coefficients);
}

}  // namespace

void keep_rounded_weights(const Recipe& recipe, const ParameterList& parameters) {
  const bool is_on_host =
      parameters.empty() || is_host_memory(layout_device(parameters.front().value.device()));
  if (recipe.train.accumulate == 1 && is_on_host) return;
  for (const Parameter& parameter : parameters) parameter.value.keep_rounded();
}

std::unique_ptr<StepReadings> record_gradients(const EncoderDecoder& model, const Recipe& recipe,
                                               const Batch& batch, int64_t step) {
  const int64_t batch_rows = batch.encoder_tokens_BL.dim(0), parts = recipe.train.accumulate;
  STMOE_CHECK(batch_rows % parts == 0, "{} rows in {} micro-batches", batch_rows, parts);
  const int64_t part_rows = batch_rows / parts;
  const double share = 1.0 / static_cast<double>(parts);
  const double normalizer =
      recipe.train.loss_normalization == "sum"
          ? 1.0
          : static_cast<double>(std::max<int64_t>(1, batch.num_target_tokens));
  auto readings = std::make_unique<StepReadings>();
  Readout& readout = readings->readout;
  StepLosses& losses = readings->losses;
  losses.input_tokens = batch.num_input_tokens;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t begin = part * part_rows, end = begin + part_rows;
    ForwardContext context;
    context.is_training = true;
    context.compute = parse_dtype(recipe.precision.compute);
    context.attention = parse_attention_method(recipe.cuda.attention);
    context.key = RandomKey{static_cast<uint64_t>(recipe.train.seed)}.fold("train").fold(
        static_cast<uint64_t>(step));
    context.first_row = begin;
    ModelOutputs outputs = model.forward_hidden(inputs_of(batch, begin, end), context);
    const CrossEntropy language =
        model.loss(outputs.decoder_BTD, rows(batch.targets_BT, begin, end),
                   {recipe.train.z_loss, recipe.train.label_smoothing}, 1.0 / normalizer);
    const Var total = total_loss(recipe, outputs, language.total, 1.0 / normalizer, share);
    add_number(readout, total, losses.total_loss);
    add_language(*readings, language);
    add_routing(*readings, outputs, share);
    if (outputs.attention_z_loss.defined())
      add_number(readout, outputs.attention_z_loss, losses.attention_z_loss, share);
    outputs = {};  // what no op keeps is released
    backward(total);
  }
  return readings;
}

StepLosses accumulate_gradients(const EncoderDecoder& model, const Recipe& recipe,
                                const Batch& batch, int64_t step) {
  return record_gradients(model, recipe, batch, step)->read();
}

StepLosses held_out_losses(const EncoderDecoder& model, const Recipe& recipe, const Batch& batch) {
  NoGradScope no_grad;
  const int64_t batch_rows = batch.encoder_tokens_BL.dim(0);
  const int64_t part_rows = std::max<int64_t>(1, recipe.data.batch_size / recipe.train.accumulate);
  StepReadings readings;
  readings.losses.input_tokens = batch.num_input_tokens;
  for (int64_t begin = 0; begin < batch_rows; begin += part_rows) {
    const int64_t end = std::min(batch_rows, begin + part_rows);
    ForwardContext context;
    context.compute = parse_dtype(recipe.precision.compute);
    context.attention = parse_attention_method(recipe.cuda.attention);
    context.first_row = begin;
    const ModelOutputs outputs = model.forward_hidden(inputs_of(batch, begin, end), context);
    add_language(readings, model.loss(outputs.decoder_BTD, rows(batch.targets_BT, begin, end), {}));
    add_routing(readings, outputs,
                static_cast<double>(end - begin) / static_cast<double>(batch_rows));
  }
  return readings.read();
}

}  // namespace stmoe
