// SPDX-License-Identifier: Apache-2.0
#include "lib/optim/adafactor.h"

#include <algorithm>
#include <cmath>

#include "lib/base/profile.h"

namespace stmoe {
namespace {

Shape without_dim(const Shape& shape, int dropped) {
  Shape rest;
  for (int i = 0; i < shape.rank(); ++i)
    if (i != dropped) rest.append(shape[i]);
  return rest;
}

class Adafactor final : public Optimizer {
 public:
  Adafactor(const AdafactorConfig& config, const ParameterList& parameters) : config_(config) {
    for (const Parameter& parameter : parameters) {
      Slots slots;
      const Var& weight = parameter.value;
      slots.name = parameter.name;
      slots.factoring = choose_factoring(weight.shape(), parameter.stacked_dims, config);
      auto make = [&](const Shape& shape) {
        return Tensor::persistent(shape, weight.dtype(), weight.device());
      };
      if (slots.factoring.is_factored()) {
        slots.row = make(slots.factoring.row_shape);
        slots.column = make(slots.factoring.column_shape);
      } else {
        slots.second = make(weight.shape());
      }
      if (config.beta1 > 0) slots.momentum = make(weight.shape());
      for (int i = 0; i < parameter.stacked_dims; ++i) slots.num_slices *= weight.dim(i);
      slots_.push_back(std::move(slots));
    }
  }

  void update(const ParameterList& parameters, double learning_rate, int64_t step) override {
    OpScope scope("adafactor", OpScope::Pass::forward);
    count_update_bytes(*this, parameters);
    STMOE_CHECK(parameters.size() == slots_.size());
    const double t = static_cast<double>(std::max<int64_t>(0, step - config_.step_offset)) + 1.0;
    const double beta2 = 1.0 - std::pow(t, -config_.decay_exponent);
    for (size_t i = 0; i < parameters.size(); ++i) {
      const Parameter& parameter = parameters[i];
      const Slots& slots = slots_[i];
      STMOE_CHECK(parameter.name == slots.name, "adafactor: {} where {} was", parameter.name,
                  slots.name);
      Tensor gradient = parameter.value.grad();
      if (!gradient.defined()) continue;
      gradient = gradient.contiguous();
      kernels<AdafactorKernels>(gradient.device())
          .update({updated_weight(parameter.value, step), gradient, slots.row, slots.column,
                   slots.second, slots.momentum, &slots.factoring, slots.num_slices, beta2,
                   learning_rate},
                  config_.rule());
    }
  }

  std::vector<NamedTensor> state() const override {
    std::vector<NamedTensor> all;
    for (const Slots& slots : slots_) {
      auto add = [&](const char* slot, const Tensor& tensor) {
        if (tensor.defined()) all.push_back({slots.name + "/" + slot, tensor});
      };
      add("v_row", slots.row);
      add("v_column", slots.column);
      add("v", slots.second);
      add("m", slots.momentum);
    }
    return all;
  }

 private:
  struct Slots {
    std::string name;
    Factoring factoring;
    Tensor row, column, second, momentum;
    int64_t num_slices = 1;
  };
  AdafactorConfig config_;
  std::vector<Slots> slots_;
};

STMOE_REGISTER(Optimizer, "adafactor",
               {[] { return ConfigBox::of<AdafactorConfig>(); },
                [](const ConfigBox& config,
                   const ParameterList& parameters) -> std::unique_ptr<Optimizer> {
                  return std::make_unique<Adafactor>(config.as<AdafactorConfig>(), parameters);
                }})

}  // namespace

Factoring choose_factoring(const Shape& shape, int stacked_dims, const AdafactorConfig& config) {
  Factoring f;
  const bool by_expert = stacked_dims > 0 && config.factor_scope == "expert";
  const int first = by_expert ? stacked_dims : 0;
  if (shape.rank() - first < 2 || (by_expert && shape.rank() - first != 2)) return f;
  // The two largest dimensions, of equal ones the later; in memory order (row before column).
  int largest = first, second = -1;
  for (int i = first + 1; i < shape.rank(); ++i)
    if (shape[i] >= shape[largest]) largest = i;
  for (int i = first; i < shape.rank(); ++i)
    if (i != largest && (second < 0 || shape[i] >= shape[second])) second = i;
  if (!by_expert && shape[second] < config.min_dim_to_factor) return f;
  const int row = std::min(largest, second), column = std::max(largest, second);
  STMOE_CHECK(shape.rank() <= 3, "adafactor: weights of rank {}", shape.rank());
  Shape strides = shape;
  int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[i] = step;
    step *= shape[i];
  }
  f.rows = shape[row];
  f.columns = shape[column];
  f.row_stride = strides[row];
  f.column_stride = strides[column];
  f.batches = shape.numel() / std::max<int64_t>(1, f.rows * f.columns);
  const int batch = shape.rank() == 3 ? 3 - row - column : -1;
  f.batch_stride = batch >= 0 ? strides[batch] : 0;
  f.row_shape = without_dim(shape, column);
  f.column_shape = without_dim(shape, row);
  return f;
}

}  // namespace stmoe
