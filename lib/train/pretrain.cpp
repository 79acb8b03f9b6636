// SPDX-License-Identifier: Apache-2.0
#include "lib/train/pretrain.h"

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/threads.h"
#include "lib/checkpoint/checkpoint_saver.h"
#include "lib/comm/communicator.h"
#include "lib/train/profile_report.h"
#include "lib/train/run_directory.h"
#include "lib/train/trainer.h"

namespace stmoe {
namespace {

std::string duration_text(double seconds) {
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  if (whole >= 3600) return format("{} h {:02} min", whole / 3600, whole / 60 % 60);
  if (whole >= 60) return format("{} min {:02} s", whole / 60, whole % 60);
  return format("{} s", whole);
}

class LogScope {
 public:
  explicit LogScope(const Path& file) { attach_log_file(file.string()); }
  ~LogScope() { detach_log_file(); }
  LogScope(const LogScope&) = delete;
  LogScope& operator=(const LogScope&) = delete;
};

// What happens around the steps of one run.
class Run {
 public:
  Run(const Recipe& recipe, const RunDirectory& directory, Trainer& trainer, int64_t end,
      bool is_resumed)
      : recipe_(recipe),
        directory_(directory),
        trainer_(trainer),
        // A run from the start drops the line of an earlier evaluation before the first step, too.
        metrics_(directory.path(), is_resumed ? trainer.step() : -1),
        end_(end),
        saver_([this](const Path& saved) { note_saved(saved); }) {
    trainer_.before_updates([this] { saver_.wait_until_read(); });
  }
  ~Run() { trainer_.before_updates({}); }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  void evaluate() {
    if (auto metrics = trainer_.evaluate()) {
      metrics_.write(*metrics);
      log_info("[evaluate] step {}: held-out loss {:.4f}, perplexity {:.2f}", metrics->step,
               metrics->values[0].second, metrics->values[1].second);
    }
    const std::vector<CorpusUse> corpora = trainer_.corpora();
    if (corpora.size() > 1 && done_ > 0)
      log_info("[data] tokens by corpus: {}", tokens_text(corpora));
  }

  void log_step() {
    const StepMetrics m = trainer_.take_metrics();
    metrics_.write(m);
    const double left = watch_.seconds() / static_cast<double>(std::max<int64_t>(1, done_)) *
                        static_cast<double>(end_ - m.step);
    std::string line = format("step {}/{}  loss {:.4f}  {:.0f} tokens/s  {} left", m.step, end_,
                              m.loss, m.tokens_per_second, duration_text(left));
    const std::string routing = routing_text(m.routing);
    log_info("[train] {}{}{}", line, routing.empty() ? "" : "  ", routing);
    for (const CollapseWatch::Change& change : collapse_.judge(m.routing)) {
      if (change.is_collapse)
        log_warn("[routing] {}", change.text);
      else
        log_info("[routing] {}", change.text);
    }
    show_progress_line(line);
  }

  // Weights that are not finite are of no use: the last good checkpoint stays the newest. The guard
  // goes back to it, unless the run ends here.
  void save(bool is_ending) {
    const std::string bad = first_non_finite_weight(trainer_.parameters());
    if (!bad.empty() && !is_ending) {
      log_warn("[checkpoint] step {}: not saved: {} is not finite", trainer_.step(), bad);
      return;
    }
    if (!bad.empty())
      throw DivergedError(
          format("training diverged at step {}: {} is not finite, so it was not saved; lower the "
                 "learning rate and run again: it goes on from the last checkpoint",
                 trainer_.step(), bad));
    saver_.start(directory_.checkpoints(), trainer_.contents());
    if (is_ending) saver_.finish();
  }

  void roll_back() {
    saver_.finish();
    const auto newest = newest_checkpoint(directory_.checkpoints());
    if (!newest)
      throw DivergedError(format(
          "training diverged at step {} before the first checkpoint; lower the learning rate",
          trainer_.step()));
    trainer_.roll_back(Checkpoint::open(*newest));
  }

  // After a step: line, evaluation, checkpoint, in this order, so that a checkpoint knows of both.
  // What is written depends on the step alone, not on where --steps ends this process: a run in
  // pieces writes what one in one go writes.
  void after_step(Trainer::Outcome outcome, bool is_stopping) {
    ++done_;
    const int64_t step = trainer_.step();
    const bool is_final = step == recipe_.train.steps;
    if (is_due(recipe_.train.log_every, step) || is_final) log_step();
    if (is_due(recipe_.train.evaluate_every, step) || is_final) evaluate();
    // While updates are refused, no checkpoint takes the place of the one to go back to.
    const bool is_good = outcome == Trainer::Outcome::updated;
    const bool is_ending = step >= end_ || is_stopping;
    if ((is_due(recipe_.checkpoint.save_every, step) && is_good) || is_ending) save(is_ending);
  }

 private:
  static bool is_due(int64_t every, int64_t step) { return every > 0 && step % every == 0; }

  void note_saved(const Path& saved) const {
    apply_retention(directory_.checkpoints(), recipe_.checkpoint.keep_last,
                    recipe_.checkpoint.keep_every);
    log_info("[checkpoint] saved {}", saved.string());
  }

  const Recipe& recipe_;
  const RunDirectory& directory_;
  Trainer& trainer_;
  MetricsLog metrics_;
  CollapseWatch collapse_;
  int64_t end_, done_ = 0;
  Stopwatch watch_;
  CheckpointSaver saver_;
};

// Records steps 3 to 12 of this process, or as many of them as there are, once the first two have
// planned the memory.
class ProfiledSteps {
 public:
  ProfiledSteps(const PretrainOptions& options, const Trainer& trainer)
      : options_(options), trainer_(trainer) {}

  void before_step() {
    if (options_.profile && done_ == kFirst - 1) start_profile(kMostTraceEvents);
  }
  void after_step(bool is_last) {
    ++done_;
    if (options_.profile && (done_ == kLast || (is_last && done_ >= kFirst && done_ < kLast)))
      report();
  }

 private:
  static constexpr int64_t kFirst = 3, kLast = 12;

  void report() const {
    const Profile profile = stop_profile();
    const Path table = options_.output / "profile.txt";
    const Path trace = options_.trace.value_or(options_.output / "trace.json");
    write_file_atomically(
        table, format("{}\n{}", profile_table(profile, measure_machine_peaks(options_.device)),
                      trainer_.alive_table()));
    write_trace(profile, trace);
    double waiting = 0;
    for (const OpTime& op : profile.ops)
      if (op.op == "waiting for data") waiting = op.forward.seconds;
    log_info("[profile] {} steps, {:.2f} % of them waiting for data: {}, {}", profile.steps,
             100 * waiting / profile.step_seconds, table.string(), trace.string());
  }

  const PretrainOptions& options_;
  const Trainer& trainer_;
  int64_t done_ = 0;
};

void describe(const Recipe& recipe, const Trainer& trainer, bool is_pinned) {
  int64_t total = 0;
  for (const Parameter& parameter : trainer.parameters()) total += parameter.value.numel();
  log_info("[train] {:.1f} M parameters, {} experts in {} sparse layers, {} compute, {} threads{}",
           static_cast<double>(total) * 1e-6, recipe.moe.num_experts,
           recipe.moe.encoder_sparse_layers.size() + recipe.moe.decoder_sparse_layers.size(),
           recipe.precision.compute, num_threads(), is_pinned ? ", each on its core" : "");
  if (recipe.moe.attention_experts != "none" && recipe.precision.compute == "bf16")
    log_warn(
        "[train] experts in attention with precision.compute: bf16 diverged in the Switch paper "
        "(appendix A, table 10); f32 trained");
  if (const std::vector<CorpusUse> corpora = trainer.corpora(); corpora.size() > 1)
    log_info("[data] examples come from {}", rates_text(corpora));
}

// What a run that has no checkpoint yet starts from besides its recipe.
std::optional<Path> initial_checkpoint(const CheckpointConfig& config,
                                       const std::optional<Path>& resumed) {
  if (config.initial.empty()) {
    if (!resumed && config.initial_state == "all")
      throw UsageError(
          "checkpoint.initial: not set, but checkpoint.initial_state is all: name the checkpoint "
          "or run directory to go on from");
    return std::nullopt;
  }
  if (!resumed) {
    try {
      return find_checkpoint(config.initial.path());
    } catch (const InputError& error) {
      throw InputError(format("checkpoint.initial: {}", error.what()));
    }
  }
  log_info("[train] checkpoint.initial is not read: there is a checkpoint to go on from");
  return std::nullopt;
}

void start_from(const Path& initial, const Recipe& recipe, Trainer& trainer) {
  const bool is_all = recipe.checkpoint.initial_state == "all";
  trainer.start_from(Checkpoint::open(initial),
                     is_all ? Trainer::InitialState::all : Trainer::InitialState::weights);
  if (trainer.step() >= recipe.train.steps)
    throw UsageError(
        format("train.steps: is {}, but checkpoint.initial ({}) with initial_state all goes on "
               "from step {}; raise train.steps by that, or set initial_state to weights",
               recipe.train.steps, initial.string(), trainer.step()));
  log_info("[train] starting from {} of {}, at step {}",
           is_all ? "the weights and the optimizer" : "the weights", initial.string(),
           trainer.step());
}

void run_in(const RunDirectory& directory, const Recipe& recipe, TrainingData data,
            const PretrainOptions& options, const StopRequest& stop) {
  const PinnedThreads pinned;
  const auto from = directory.checkpoint_to_resume(options.resume);
  const auto initial = initial_checkpoint(recipe.checkpoint, from);
  const int64_t end = options.steps.value_or(recipe.train.steps);
  Trainer trainer(
      recipe, std::move(data),
      from || initial ? Trainer::Weights::to_be_restored : Trainer::Weights::initialized,
      options.device);
  if (from) {
    trainer.restore(Checkpoint::open(*from));
    log_info("[train] going on from {}", from->string());
  } else if (initial) {
    start_from(*initial, recipe, trainer);
  }
  write_file_atomically(options.output / "recipe.yaml", print_config(recipe));
  if (trainer.step() >= end) {
    log_info("[train] step {} is done already; --steps asks for more", trainer.step());
    return;
  }
  describe(recipe, trainer, pinned.is_pinned());

  Run run(recipe, directory, trainer, end, from.has_value());
  ProfiledSteps profiled(options, trainer);
  if (!from) run.evaluate();
  while (trainer.step() < end) {
    profiled.before_step();
    const Trainer::Outcome outcome = trainer.train_step();
    const bool is_stopping = stop.requested();
    profiled.after_step(is_stopping || trainer.step() >= end);
    if (outcome == Trainer::Outcome::wants_rollback) run.roll_back();
    run.after_step(outcome, is_stopping);
    if (is_stopping && trainer.step() < end)
      throw InterruptedError(
          format("stopped on request after step {}; the checkpoint is saved: run the same command "
                 "again to go on",
                 trainer.step()));
  }
  show_progress_line("");
  log_info("[train] peak memory {} MiB, {}", trainer.peak_bytes() >> 20,
           trainer.memory_plan().text());
  log_info("[train] done: {} steps in {}", end, options.output.string());
}

}  // namespace

void pretrain(const Recipe& recipe, const PretrainOptions& options, const StopRequest& stop) {
  make_communicator();  // refuses to be one of several processes, which would overwrite each other
  TrainingData data = open_training_data(recipe);
  const RunDirectory directory(options.output);
  const LogScope log(options.output / "log.txt");
  try {
    run_in(directory, recipe, std::move(data), options, stop);
  } catch (const std::exception& error) {
    log_to_file(LogLevel::error, error.what());  // the console gets it from the executable
    throw;
  }
}

}  // namespace stmoe
