// SPDX-License-Identifier: Apache-2.0
// AdamW (Loshchilov and Hutter 2019) with the operations in the order of torch.optim.AdamW:
//   p *= 1 - lr * weight_decay;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   p -= lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps),  t from 1
#include <cmath>

#include "lib/base/profile.h"
#include "lib/base/threads.h"
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

struct AdamWUpdate {
  Tensor weight, gradient, first, second;
  double decay, step_size, second_correction;
};

struct AdamWKernels {
  static constexpr const char* kOp = "adamw";
  void (*update)(const AdamWUpdate& update, const AdamWConfig& config);
};

template <class T>
struct Coefficients {
  T beta1, keep1, beta2, keep2, decay, step_size, second_correction, epsilon;
};

// Outside the lambda, where captured pointers would be read again for every element.
template <class T>
void update_run(T* __restrict p, T* __restrict m, T* __restrict v, const T* __restrict g,
                const Coefficients<T>& coefficients, int64_t count) {
  const Coefficients<T> c = coefficients;
  for (int64_t i = 0; i < count; ++i) {
    m[i] = c.beta1 * m[i] + c.keep1 * g[i];
    v[i] = c.beta2 * v[i] + c.keep2 * (g[i] * g[i]);
    p[i] =
        c.decay * p[i] - c.step_size * m[i] / (std::sqrt(v[i]) / c.second_correction + c.epsilon);
  }
}

template <class T>
void update_typed(const AdamWUpdate& u, const AdamWConfig& config) {
  // 1 - b in f64: in f32 it would lose digits.
  const Coefficients<T> c = {static_cast<T>(config.beta1),
                             static_cast<T>(1.0 - config.beta1),
                             static_cast<T>(config.beta2),
                             static_cast<T>(1.0 - config.beta2),
                             static_cast<T>(u.decay),
                             static_cast<T>(u.step_size),
                             static_cast<T>(u.second_correction),
                             static_cast<T>(config.epsilon)};
  T *p = u.weight.data<T>(), *m = u.first.data<T>(), *v = u.second.data<T>();
  const T* g = u.gradient.data<T>();
  parallel_for(u.weight.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
    update_run(p + begin, m + begin, v + begin, g + begin, c, end - begin);
  });
}

void update_cpu(const AdamWUpdate& u, const AdamWConfig& config) {
  if (u.weight.dtype() == DType::f64) return update_typed<double>(u, config);
  update_typed<float>(u, config);
}

STMOE_REGISTER_KERNELS(AdamWKernels, cpu, {update_cpu})

class AdamW final : public Optimizer {
 public:
  AdamW(const AdamWConfig& config, const ParameterList& parameters) : config_(config) {
    for (const Parameter& parameter : parameters) {
      const Tensor& weight = parameter.value.value();
      auto make = [&] {
        return Tensor::persistent(weight.shape(), weight.dtype(), weight.device());
      };
      slots_.push_back({parameter.name, make(), make()});
    }
  }

  void update(const ParameterList& parameters, double learning_rate, int64_t step) override {
    OpScope scope("adamw", OpScope::Pass::forward);
    STMOE_CHECK(parameters.size() == slots_.size());
    const double t = static_cast<double>(step) + 1.0;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const Var& value = parameters[i].value;
      STMOE_CHECK(parameters[i].name == slots_[i].name, "adamw: {} where {} was",
                  parameters[i].name, slots_[i].name);
      if (!value.grad().defined()) continue;
      kernels<AdamWKernels>(value.device())
          .update({value.value(), value.grad().contiguous(), slots_[i].first, slots_[i].second,
                   1.0 - learning_rate * config_.weight_decay,
                   learning_rate / (1.0 - std::pow(config_.beta1, t)),
                   std::sqrt(1.0 - std::pow(config_.beta2, t))},
                  config_);
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
