// SPDX-License-Identifier: Apache-2.0
// Learning-rate schedules:
//   rsqrt     scale / sqrt(max(step, warmup_steps)): T5's and Switch's (t5x `rsqrt_decay`):
//   constant, then decaying;
//             with `linear_warmup` the constant part becomes a ramp from 0
//   constant  after an optional linear warm-up
//   linear, cosine   from the peak after the warm-up to `end_learning_rate` at `decay_steps`,
//   constant afterwards
#include <algorithm>
#include <cmath>
#include <numbers>

#include "lib/optim/schedule.h"

namespace stmoe {
namespace {

// Factor of a linear warm-up: the first step already learns.
double warmup_factor(int64_t step, int64_t warmup_steps) {
  if (step >= warmup_steps) return 1.0;
  return static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
}

class Rsqrt final : public Schedule {
 public:
  struct Config {
    double scale = 1.0;
    int64_t warmup_steps = 10000;
    bool linear_warmup = false;
    void visit(auto& v) {
      v("scale", scale, "numerator of scale / sqrt(step)", greater_than(0.0));
      v("warmup_steps", warmup_steps, "steps at the first rate, scale / sqrt(warmup_steps)",
        at_least(1));
      v("linear_warmup", linear_warmup, "rise linearly from 0 during the warm-up");
    }
  };
  explicit Rsqrt(const Config& config) : config_(config) {}
  double rate(int64_t step) const override {
    const double rate =
        config_.scale / std::sqrt(static_cast<double>(std::max(step, config_.warmup_steps)));
    return config_.linear_warmup ? rate * warmup_factor(step, config_.warmup_steps) : rate;
  }

 private:
  Config config_;
};

class Constant final : public Schedule {
 public:
  struct Config {
    double learning_rate = 1e-3;
    int64_t warmup_steps = 0;
    void visit(auto& v) {
      v("learning_rate", learning_rate, "the rate after the warm-up", greater_than(0.0));
      v("warmup_steps", warmup_steps, "steps of linear rise", at_least(0));
    }
  };
  explicit Constant(const Config& config) : config_(config) {}
  double rate(int64_t step) const override {
    return config_.learning_rate * warmup_factor(step, config_.warmup_steps);
  }

 private:
  Config config_;
};

struct DecayConfig {
  double learning_rate = 1e-3;
  double end_learning_rate = 0.0;
  int64_t warmup_steps = 0;
  int64_t decay_steps = 0;
  void visit(auto& v) {
    v("learning_rate", learning_rate, "the peak, reached after the warm-up", greater_than(0.0));
    v("end_learning_rate", end_learning_rate, "the rate at the end of the decay", at_least(0.0));
    v("warmup_steps", warmup_steps, "steps of linear rise", at_least(0));
    v("decay_steps", decay_steps, "step at which the decay ends; 0: the end of the run",
      at_least(0));
  }
};

// A peak after a warm-up, then `shape` from 1 at the peak to 0 at the end.
class Decay : public Schedule {
 public:
  Decay(const DecayConfig& config, int64_t total_steps) : config_(config) {
    end_ = config.decay_steps > 0 ? config.decay_steps : total_steps;
    if (end_ <= config.warmup_steps)
      throw UsageError(
          format("schedule.warmup_steps: {} steps of warm-up leave nothing of {} steps to decay; "
                 "lower it or raise decay_steps",
                 config.warmup_steps, end_));
  }
  double rate(int64_t step) const override {
    if (step < config_.warmup_steps)
      return config_.learning_rate * warmup_factor(step, config_.warmup_steps);
    const double done = std::min(1.0, static_cast<double>(step - config_.warmup_steps) /
                                          static_cast<double>(end_ - config_.warmup_steps));
    return config_.end_learning_rate +
           (config_.learning_rate - config_.end_learning_rate) * shape(done);
  }

 private:
  virtual double shape(double done) const = 0;
  DecayConfig config_;
  int64_t end_;
};

class Linear final : public Decay {
 public:
  using Config = DecayConfig;
  using Decay::Decay;

 private:
  double shape(double done) const override { return 1.0 - done; }
};

class Cosine final : public Decay {
 public:
  using Config = DecayConfig;
  using Decay::Decay;

 private:
  double shape(double done) const override {
    return 0.5 * (1.0 + std::cos(std::numbers::pi * done));
  }
};

template <class S>
Schedule::Factory factory() {
  return {[] { return ConfigBox::of<typename S::Config>(); },
          [](const ConfigBox& config, int64_t total_steps) -> std::unique_ptr<Schedule> {
            const auto& values = config.as<typename S::Config>();
            if constexpr (std::is_constructible_v<S, const typename S::Config&, int64_t>)
              return std::make_unique<S>(values, total_steps);
            else
              return std::make_unique<S>(values);
          }};
}

STMOE_REGISTER(Schedule, "rsqrt", factory<Rsqrt>())
STMOE_REGISTER(Schedule, "constant", factory<Constant>())
STMOE_REGISTER(Schedule, "linear", factory<Linear>())
STMOE_REGISTER(Schedule, "cosine", factory<Cosine>())

}  // namespace

std::unique_ptr<Schedule> make_schedule(const Choice<Schedule>& choice, int64_t total_steps) {
  return Registry<Schedule>::get(choice.kind()).make(choice.box(), total_steps);
}

}  // namespace stmoe
