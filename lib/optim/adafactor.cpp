// SPDX-License-Identifier: Apache-2.0
#include "lib/optim/adafactor.h"

#include <algorithm>
#include <cmath>

#include "lib/base/profile.h"
#include "lib/base/threads.h"
#include "lib/optim/gradients.h"

namespace stmoe {
namespace {

constexpr double kEpsilon = 1e-30;
constexpr int64_t kChunk = 1 << 15;
constexpr int64_t kBlock =
    1 << 18;  // elements of a row block: bounds the memory of partial column sums

// row[b, i] += sum over j of g^2 and column[b, j] += sum over i, both then averaged and decayed
// into the slots.
template <class T>
void update_factors(const AdafactorUpdate& u) {
  const Factoring& f = *u.factoring;
  const T* gradient = u.gradient.data<T>();
  T *row = u.row.data<T>(), *column = u.column.data<T>();
  const T beta2 = static_cast<T>(u.beta2), keep = T(1) - beta2, epsilon = static_cast<T>(kEpsilon);
  const int64_t block_rows = std::clamp<int64_t>(kBlock / f.columns, 1, f.rows);
  const int64_t blocks = num_chunks(f.rows, block_rows);
  Tensor partial = Tensor::empty({f.batches, blocks, f.columns}, u.gradient.dtype());
  T* column_sums = partial.data<T>();
  parallel_for(f.batches * blocks, 1, [&](int64_t task, int64_t) {
    const int64_t b = task / blocks, first = task % blocks * block_rows;
    T* sums = column_sums + task * f.columns;
    std::fill(sums, sums + f.columns, T(0));
    for (int64_t i = first; i < std::min(f.rows, first + block_rows); ++i) {
      const T* g = gradient + b * f.batch_stride + i * f.row_stride;
      const int64_t step = f.column_stride;
      T total = 0;
#pragma omp simd reduction(+ : total)
      for (int64_t j = 0; j < f.columns; ++j) {
        const T square = g[j * step] * g[j * step];
        total += square;
        sums[j] += square;
      }
      T& slot = row[b * f.rows + i];
      slot = beta2 * slot + keep * (total / static_cast<T>(f.columns) + epsilon);
    }
  });
  parallel_for(f.batches * f.columns, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; ++at) {
      const T* sums = column_sums + at / f.columns * blocks * f.columns + at % f.columns;
      double total = 0;
      for (int64_t block = 0; block < blocks; ++block)
        total += static_cast<double>(sums[block * f.columns]);
      const T mean = static_cast<T>(total / static_cast<double>(f.rows));
      column[at] = beta2 * column[at] + keep * (mean + epsilon);
    }
  });
}

// g becomes u = g * (row / mean(row))^-1/2 * column^-1/2.
template <class T>
void apply_factors(const AdafactorUpdate& u) {
  const Factoring& f = *u.factoring;
  T* gradient = u.gradient.data<T>();
  const T *row = u.row.data<T>(), *column = u.column.data<T>();
  Tensor row_scale = Tensor::empty(u.row.shape(), u.row.dtype());
  Tensor column_scale = Tensor::empty(u.column.shape(), u.column.dtype());
  T *rows = row_scale.data<T>(), *columns = column_scale.data<T>();
  for (int64_t b = 0; b < f.batches; ++b) {
    double total = 0;
    for (int64_t i = 0; i < f.rows; ++i) total += static_cast<double>(row[b * f.rows + i]);
    const T mean = static_cast<T>(total / static_cast<double>(f.rows));
    for (int64_t i = 0; i < f.rows; ++i)
      rows[b * f.rows + i] = T(1) / std::sqrt(row[b * f.rows + i] / mean);
  }
  for (int64_t at = 0; at < f.batches * f.columns; ++at) columns[at] = T(1) / std::sqrt(column[at]);
  const int64_t chunk = std::max<int64_t>(1, kChunk / f.columns);
  parallel_for(f.batches * f.rows, chunk, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; ++at) {
      const int64_t b = at / f.rows;
      T* g = gradient + b * f.batch_stride + at % f.rows * f.row_stride;
      const T* scale = columns + b * f.columns;
      const T row_factor = rows[at];
      const int64_t step = f.column_stride;
      for (int64_t j = 0; j < f.columns; ++j) g[j * step] *= row_factor * scale[j];
    }
  });
}

template <class T>
void apply_second_moment(const AdafactorUpdate& u) {
  T *g = u.gradient.data<T>(), *v = u.second.data<T>();
  const T beta2 = static_cast<T>(u.beta2), keep = T(1) - beta2, epsilon = static_cast<T>(kEpsilon);
  parallel_for(u.gradient.numel(), kChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      v[i] = beta2 * v[i] + keep * (g[i] * g[i] + epsilon);
      g[i] /= std::sqrt(v[i]);
    }
  });
}

// RMS of each slice, or of the whole stack for every slice.
std::vector<double> slice_rms(const Tensor& values, int64_t num_slices, bool by_slice) {
  const int64_t size = values.numel() / num_slices;
  const Tensor slices = values.reshape({num_slices, size});
  std::vector<double> sums;
  double total = 0;
  for (int64_t s = 0; s < num_slices; ++s) {
    sums.push_back(sum_of_squares(slices.slice(0, s, s + 1)));
    total += sums.back();
  }
  for (double& sum : sums)
    sum = by_slice ? std::sqrt(sum / static_cast<double>(size))
                   : std::sqrt(total / static_cast<double>(values.numel()));
  return sums;
}

template <class T>
void apply_update(const AdafactorUpdate& u, const AdafactorConfig& config) {
  const int64_t size = u.weight.numel() / u.num_slices;
  std::vector<double> factor(static_cast<size_t>(u.num_slices), u.learning_rate);
  if (config.clipping_threshold > 0) {
    auto rms = slice_rms(u.gradient, u.num_slices, config.clip_scope == "expert");
    for (size_t s = 0; s < rms.size(); ++s)
      factor[s] /= std::max(1.0, rms[s] / config.clipping_threshold);
  }
  if (config.multiply_by_parameter_scale) {
    auto rms = slice_rms(u.weight, u.num_slices, config.scale_scope == "expert");
    for (size_t s = 0; s < rms.size(); ++s) factor[s] *= std::max(rms[s], config.minimum_scale);
  }
  T* weight = u.weight.data<T>();
  const T* update = u.gradient.data<T>();
  T* momentum = config.beta1 > 0 ? u.momentum.data<T>() : nullptr;
  const T beta1 = static_cast<T>(config.beta1), keep = T(1) - static_cast<T>(config.weight_decay);
  for (int64_t s = 0; s < u.num_slices; ++s) {
    const T c = static_cast<T>(factor[static_cast<size_t>(s)]);
    parallel_for(size, kChunk, [&](int64_t begin, int64_t end) {
      for (int64_t i = s * size + begin; i < s * size + end; ++i) {
        T delta = c * update[i];
        if (momentum) delta = momentum[i] = beta1 * momentum[i] + (T(1) - beta1) * delta;
        weight[i] = keep * weight[i] - delta;
      }
    });
  }
}

void update_cpu(const AdafactorUpdate& u, const AdafactorConfig& config) {
  visit_floating(u.weight.dtype(), [&](auto tag) {
    using T = decltype(tag);
    if constexpr (std::is_same_v<T, bf16>) {
      fail_check(__FILE__, __LINE__, "f32 or f64 weights", "adafactor");
    } else {
      if (u.factoring->is_factored()) {
        update_factors<T>(u);
        apply_factors<T>(u);
      } else {
        apply_second_moment<T>(u);
      }
      apply_update<T>(u, config);
    }
  });
}

STMOE_REGISTER_KERNELS(AdafactorKernels, cpu, {update_cpu})

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
      const Tensor& weight = parameter.value.value();
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
          .update({parameter.value.value(), gradient, slots.row, slots.column, slots.second,
                   slots.momentum, &slots.factoring, slots.num_slices, beta2, learning_rate},
                  config_);
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
