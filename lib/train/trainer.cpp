// SPDX-License-Identifier: Apache-2.0
#include "lib/train/trainer.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/profile.h"
#include "lib/model/flops.h"
#include "lib/ops/product_peak.h"

namespace stmoe {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kPeakSeconds = 0.2;

// The recipe with the vocabulary's size filled in.
Recipe complete(Recipe recipe, const Vocabulary& vocabulary) {
  if (recipe.model.vocabulary_size == 0) recipe.model.vocabulary_size = vocabulary.padded_size();
  if (recipe.model.vocabulary_size < vocabulary.size())
    throw UsageError(
        format("model.vocabulary_size: {} rows for a vocabulary of {} ({}); leave it out",
               recipe.model.vocabulary_size, vocabulary.size(), vocabulary.name()));
  return recipe;
}

}  // namespace

Trainer::Trainer(const Recipe& recipe, TrainingData data, Weights weights, Device device)
    : recipe_(complete(recipe, data.vocabulary)),
      data_(std::move(data)),
      runner_(recipe_, device,
              weights == Weights::initialized ? ParameterStore::Mode::initialized
                                              : ParameterStore::Mode::zeroed),
      guard_(recipe.train.spike) {
  schedule_ = make_schedule(recipe_.schedule, recipe_.train.steps);
  flops_per_sequence_ = training_flops_per_sequence(
      recipe_.model, recipe_.moe,
      {recipe_.data.input_length, recipe_.data.resolved_target_length()});
  peak_flops_ = measure_product_peak(parse_dtype(recipe_.precision.compute), kPeakSeconds, device);
}

Batch Trainer::next_batch() {
  const OpScope scope("waiting for data", OpScope::Pass::forward);
  return data_.source.next();
}

Trainer::Outcome Trainer::train_step() {
  const Stopwatch watch;
  const StepScope scope;
  const Batch batch = next_batch();
  const auto& [losses, norm] = runner_.compute(batch, step_);
  const double loss =
      losses.cross_entropy / static_cast<double>(std::max<int64_t>(1, losses.target_tokens));
  const double rate = schedule_->rate(step_);
  const auto verdict =
      guard_.judge(step_ + 1, loss, first_non_finite(parameters(), losses.total_loss, norm));
  if (verdict == UpdateGuard::Verdict::apply) {
    if (before_update_) before_update_();
    runner_.update(rate, step_, norm);
  }
  runner_.finish();
  ++step_;
  interval_.learning_rate = rate;
  add_to_interval(losses, norm, watch.seconds());
  routing_.add(losses.layers);
  switch (verdict) {
    case UpdateGuard::Verdict::apply:
      return Outcome::updated;
    case UpdateGuard::Verdict::skip:
      return Outcome::skipped;
    default:
      return Outcome::wants_rollback;
  }
}

void Trainer::add_to_interval(const StepLosses& losses, double gradient_norm, double seconds) {
  interval_.steps += 1;
  interval_.tokens += losses.input_tokens + losses.target_tokens;
  interval_.targets += losses.target_tokens;
  interval_.cross_entropy += losses.cross_entropy;
  interval_.total_loss += losses.total_loss;
  interval_.load_balance_loss += losses.load_balance_loss;
  interval_.router_z_loss += losses.router_z_loss;
  interval_.attention_z_loss += losses.attention_z_loss;
  interval_.dropped_fraction += losses.dropped_fraction;
  interval_.router_entropy += losses.router_entropy;
  interval_.gradient_norm = gradient_norm;
  interval_.seconds += seconds;
  input_tokens_ += losses.input_tokens;
  target_tokens_ += losses.target_tokens;
  seconds_ += seconds;
}

StepMetrics Trainer::take_metrics() {
  const Interval i = std::exchange(interval_, Interval());
  const double steps = static_cast<double>(std::max<int64_t>(1, i.steps));
  StepMetrics m;
  m.step = step_;
  m.loss = i.cross_entropy / static_cast<double>(std::max<int64_t>(1, i.targets));
  m.load_balance_loss = i.load_balance_loss / steps;
  m.router_z_loss = i.router_z_loss / steps;
  if (recipe_.model.attention_z_loss > 0) m.attention_z_loss = i.attention_z_loss / steps;
  m.total_loss = i.total_loss / steps;
  m.learning_rate = i.learning_rate;
  m.gradient_norm = i.gradient_norm;
  m.dropped_fraction = i.dropped_fraction / steps;
  m.router_entropy = i.router_entropy / steps;
  m.target_tokens = target_tokens_;
  m.input_tokens = input_tokens_;
  m.seconds = seconds_;
  m.tokens_per_second = static_cast<double>(i.tokens) / std::max(1e-9, i.seconds);
  if (peak_flops_ > 0)
    m.model_flops_utilization = flops_per_sequence_ * static_cast<double>(recipe_.data.batch_size) *
                                steps / std::max(1e-9, i.seconds) / peak_flops_;
  if (const std::vector<CorpusUse> all = corpora(); all.size() > 1)
    for (const CorpusUse& corpus : all) m.corpus_tokens.emplace_back(corpus.name, corpus.tokens);
  m.routing = routing_.take();
  return m;
}

std::optional<EvaluationMetrics> Trainer::evaluate() {
  if (!data_.validation) return std::nullopt;
  StepLosses sum;
  double batches = 0;
  data_.validation->rewind();
  while (auto batch = data_.validation->next()) {
    const StepLosses losses = runner_.held_out(*batch);
    sum.cross_entropy += losses.cross_entropy;
    sum.target_tokens += losses.target_tokens;
    sum.correct_tokens += losses.correct_tokens;
    sum.dropped_fraction += losses.dropped_fraction;
    add_scaled(sum.layers, losses.layers, 1.0);
    batches += 1;
  }
  EvaluationMetrics metrics;
  metrics.step = step_;
  metrics.split = "validation";
  metrics.task = "span_corruption";
  const double targets = static_cast<double>(std::max<int64_t>(1, sum.target_tokens));
  const double loss = sum.cross_entropy / targets;
  metrics.values = {{"loss", loss},
                    {"perplexity", std::exp(loss)},
                    {"accuracy", 100.0 * static_cast<double>(sum.correct_tokens) / targets},
                    {"dropped_fraction", sum.dropped_fraction / std::max(1.0, batches)}};
  for (const LayerRouting& layer : sum.layers) {
    std::vector<double> load(layer.statistics.load_E.begin(), layer.statistics.load_E.end());
    for (double& share : load) share /= batches;
    metrics.lists.emplace_back("expert_load/" + layer.name, std::move(load));
  }
  return metrics;
}

std::string Trainer::state_json() const {
  const Interval& i = interval_;
  return Json{{"data", Json::parse(data_.source.position())},
              {"random", {{"seed", recipe_.train.seed}, {"step", step_}}},
              {"guard", Json::parse(guard_.state())},
              {"input_tokens", input_tokens_},
              {"target_tokens", target_tokens_},
              {"seconds", seconds_},
              {"routing", Json::parse(routing_.state())},
              {"interval",
               {{"steps", i.steps},
                {"tokens", i.tokens},
                {"targets", i.targets},
                {"cross_entropy", i.cross_entropy},
                {"total_loss", i.total_loss},
                {"load_balance_loss", i.load_balance_loss},
                {"router_z_loss", i.router_z_loss},
                {"dropped_fraction", i.dropped_fraction},
                {"router_entropy", i.router_entropy},
                {"attention_z_loss", i.attention_z_loss},
                {"learning_rate", i.learning_rate},
                {"gradient_norm", i.gradient_norm},
                {"seconds", i.seconds}}}}
      .dump();
}

CheckpointContents Trainer::contents() const {
  CheckpointContents contents;
  contents.step = step_;
  for (const Parameter& parameter : parameters())
    contents.weights.push_back(named_weight(parameter));
  contents.optimizer = runner_.optimizer().state();
  contents.recipe_yaml = print_config(recipe_);
  contents.vocabulary_hash = data_.vocabulary.hash();
  contents.state_json = state_json();
  return contents;
}

void Trainer::read_weights(const Checkpoint& checkpoint) {
  if (checkpoint.vocabulary_hash() != data_.vocabulary.hash())
    throw InputError(format(
        "{}: made with another vocabulary (hash {}, {} has {}); set vocabulary.model to the one "
        "of that run",
        checkpoint.path().string(), checkpoint.vocabulary_hash(), data_.vocabulary.name(),
        data_.vocabulary.hash()));
  std::vector<NamedTensor> weights;
  for (const Parameter& parameter : parameters()) weights.push_back(named_weight(parameter));
  checkpoint.read_weights(weights);
  for (const Parameter& parameter : parameters()) parameter.value.value_changed();
}

void Trainer::restore(const Checkpoint& checkpoint) {
  read_weights(checkpoint);
  checkpoint.read_optimizer(runner_.optimizer().state());
  step_ = checkpoint.step();
  try {
    const Json state = Json::parse(checkpoint.state_json());
    data_.source.restore(state.at("data").dump());
    guard_.restore(state.at("guard").dump());
    input_tokens_ = state.at("input_tokens");
    target_tokens_ = state.at("target_tokens");
    seconds_ = state.at("seconds");
    if (state.contains("routing")) routing_.restore(state["routing"].dump());
    const Json& i = state.at("interval");
    // A refused step may leave a sum that is not finite: JSON writes it as null. Checkpoints of
    // earlier versions lack some.
    auto sum = [&](const char* name) {
      if (!i.contains(name)) return 0.0;
      return i.at(name).is_null() ? std::nan("") : i.at(name).get<double>();
    };
    interval_ = {i.at("steps"),           i.at("tokens"),          i.at("targets"),
                 sum("cross_entropy"),    sum("total_loss"),       sum("load_balance_loss"),
                 sum("router_z_loss"),    sum("dropped_fraction"), sum("router_entropy"),
                 sum("attention_z_loss"), sum("learning_rate"),    sum("gradient_norm"),
                 sum("seconds")};
  } catch (const nlohmann::json::exception& error) {
    throw InputError(format("{}: the training state cannot be read ({})",
                            checkpoint.path().string(), error.what()));
  }
}

void Trainer::start_from(const Checkpoint& checkpoint, InitialState state) {
  read_weights(checkpoint);
  if (state == InitialState::weights) return;
  checkpoint.read_optimizer(runner_.optimizer().state());
  step_ = checkpoint.step();
}

void Trainer::roll_back(const Checkpoint& checkpoint) {
  read_weights(checkpoint);
  checkpoint.read_optimizer(runner_.optimizer().state());
  guard_.rolled_back();
}

}  // namespace stmoe
