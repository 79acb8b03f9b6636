// SPDX-License-Identifier: Apache-2.0
#include "lib/optim/adamw.h"

#include <cmath>

#include "lib/base/profile.h"
#include "lib/optim/optimizer.h"

namespace stmoe {
namespace {

struct AdamWConfig {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
  void visit(auto& v) {
    v("beta1", beta1, "decay of the first moment", between(0.0, 0.9999999));
    v("beta2", beta2, "decay of the second moment", between(0.0, 0.9999999));
    v("epsilon", epsilon, "added to the root of the second moment", greater_than(0.0));
    v("weight_decay", weight_decay, "decoupled weight decay, times the rate", at_least(0.0));
  }
};

class AdamW final : public Optimizer {
 public:
  AdamW(const AdamWConfig& config, const ParameterList& parameters) : config_(config) {
    for (const Parameter& parameter : parameters) {
      const Var& weight = parameter.value;
      auto make = [&] {
        return Tensor::persistent(weight.shape(), weight.dtype(), weight.device());
      };
      slots_.push_back({parameter.name, make(), make()});
    }
  }

  void update(const ParameterList& parameters, double learning_rate, int64_t step) override {
    OpScope scope("adamw", OpScope::Pass::forward);
    count_update_bytes(*this, parameters);
    STMOE_CHECK(parameters.size() == slots_.size());
    const double t = static_cast<double>(step) + 1.0;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const Var& value = parameters[i].value;
      STMOE_CHECK(parameters[i].name == slots_[i].name, "adamw: {} where {} was",
                  parameters[i].name, slots_[i].name);
      if (!value.grad().defined()) continue;
      kernels<AdamWKernels>(value.device())
          .update({updated_weight(value, step), value.grad().contiguous(), slots_[i].first,
                   slots_[i].second, config_.beta1, config_.beta2, config_.epsilon,
                   1.0 - learning_rate * config_.weight_decay,
                   learning_rate / (1.0 - std::pow(config_.beta1, t)),
                   std::sqrt(1.0 - std::pow(config_.beta2, t))});
    }
  }

  std::vector<NamedTensor> state() const override {
    std::vector<NamedTensor> all;
    for (const Slots& slots : slots_) {
      all.push_back({slots.name + "/m", slots.first});
      all.push_back({slots.name + "/v", slots.second});
    }
    return all;
  }

 private:
  struct Slots {
    std::string name;
    Tensor first, second;
  };
  AdamWConfig config_;
  std::vector<Slots> slots_;
};

STMOE_REGISTER(Optimizer, "adamw",
               {[] { return ConfigBox::of<AdamWConfig>(); },
                [](const ConfigBox& config,
                   const ParameterList& parameters) -> std::unique_ptr<Optimizer> {
                  return std::make_unique<AdamW>(config.as<AdamWConfig>(), parameters);
                }})

}  // namespace
}  // namespace stmoe
