// SPDX-License-Identifier: Apache-2.0
// Adafactor's CPU kernel. Passes over a factored weight: sums of squares (reads g), size of the
// update (reads g), weight scale (reads w), update (reads g and w, writes w). The update u = g *
// row_scale * column_scale is never stored.
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include "lib/base/threads.h"
#include "lib/optim/adafactor_kernels.h"
#include "lib/optim/cpu/squares.h"
#include "lib/optim/cpu/stored_weights.h"
#include "lib/optim/gradients.h"

namespace stmoe {
namespace {

constexpr double kEpsilon = 1e-30;
constexpr int64_t kChunk = 1 << 15;  // elements of a piece of work
// Rows that share one partial sum over columns: bounds the memory and traffic of those sums.
constexpr int64_t kBlockRows = 32;

// The inner loops are functions of their own: in a lambda, captured pointers would be read again
// for every element. `step` is the distance of neighbours in a row: nearly always one, and then a
// constant, without which the loops would not become vector code.
template <class Body>
void with_step(int64_t step, Body&& body) {
  step == 1 ? body(One{}) : body(step);
}

// Adds squares to the sums of the columns; returns the sum over the row.
template <class T, class Step>
T add_squares(const T* __restrict g, Step step, T* __restrict sums, int64_t columns) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t j = 0; j < columns; ++j) {
    const T square = g[j * step] * g[j * step];
    total += square;
    sums[j] += square;
  }
  return total;
}

template <class T, class Step>
T sum_of_scaled_squares(const T* __restrict g, Step step, const T* __restrict scale,
                        int64_t columns) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t j = 0; j < columns; ++j) {
    const T value = g[j * step] * scale[j];
    total += value * value;
  }
  return total;
}

// weight = keep * weight - delta, delta = row_scale * column_scale * g, averaged in the momentum.
template <class T, class WeightStep, class Step>
void subtract(T* __restrict weight, WeightStep weight_step, const T* __restrict g,
              T* __restrict momentum, Step step, T row_scale, const T* __restrict column_scale,
              T keep, T beta1, T keep1, int64_t columns) {
  if (momentum) {
    for (int64_t j = 0; j < columns; ++j) {
      momentum[j * step] =
          beta1 * momentum[j * step] + keep1 * (row_scale * column_scale[j] * g[j * step]);
      weight[j * weight_step] = keep * weight[j * weight_step] - momentum[j * step];
    }
  } else {
    for (int64_t j = 0; j < columns; ++j)
      weight[j * weight_step] =
          keep * weight[j * weight_step] - row_scale * column_scale[j] * g[j * step];
  }
}

// v = b2 v + (1 - b2) G; returns the sum of squares of u = g v^-1/2.
template <class T>
double update_second_moment(const T* __restrict g, T* __restrict v, T beta2, T keep2,
                            int64_t count) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < count; ++i) {
    const T square = g[i] * g[i];
    v[i] = beta2 * v[i] + keep2 * (square + static_cast<T>(kEpsilon));
    total += square / v[i];
  }
  return static_cast<double>(total);
}

template <class T>
void subtract_unfactored(T* __restrict weight, const T* __restrict g, const T* __restrict v,
                         T* __restrict momentum, T scale, T keep, T beta1, T keep1, int64_t count) {
  if (momentum) {
    for (int64_t i = 0; i < count; ++i) {
      momentum[i] = beta1 * momentum[i] + keep1 * (scale * g[i] / std::sqrt(v[i]));
      weight[i] = keep * weight[i] - momentum[i];
    }
  } else {
    for (int64_t i = 0; i < count; ++i)
      weight[i] = keep * weight[i] - scale * g[i] / std::sqrt(v[i]);
  }
}

double sum_of_squares(const WeightTensor& weight) {
  double sum = 0;
  const auto in_chunks = [&](auto&& squares) {
    sum = sum_of_chunks(weight.value.numel(), squares);
  };
  if (!weight.is_plain()) {
    in_chunks([&](int64_t begin, int64_t end) {
      std::vector<float> values(static_cast<size_t>(end - begin));
      load_weights(values.data(), weight, begin, One{}, end - begin);
      return squares_of(values.data(), end - begin);
    });
    return sum;
  }
  visit_floating(weight.value.dtype(), [&](auto tag) {
    const auto* values = weight.value.data<decltype(tag)>();
    in_chunks([&](int64_t begin, int64_t end) { return squares_of(values + begin, end - begin); });
  });
  return sum;
}

// What each slice's update is multiplied by: learning rate, clipping, scale of the weight.
// `squares` holds the sum of u^2 of every slice.
std::vector<double> slice_factors(const AdafactorUpdate& u, const AdafactorRule& rule,
                                  const std::vector<double>& squares) {
  const auto slices = static_cast<size_t>(u.num_slices);
  const auto size = static_cast<double>(u.weight.numel() / u.num_slices);
  auto root_mean = [&](const std::vector<double>& sums, bool by_expert, size_t s) {
    if (by_expert) return std::sqrt(sums[s] / size);
    return std::sqrt(std::accumulate(sums.begin(), sums.end(), 0.0) /
                     (size * static_cast<double>(slices)));
  };
  std::vector<double> factors(slices, u.learning_rate);
  if (rule.clipping_threshold > 0)
    for (size_t s = 0; s < slices; ++s)
      factors[s] /=
          std::max(1.0, root_mean(squares, rule.clips_experts, s) / rule.clipping_threshold);
  if (rule.multiply_by_parameter_scale) {
    std::vector<double> weights;
    for (int64_t s = 0; s < u.num_slices; ++s)
      weights.push_back(sum_of_squares(u.weight.weight.slice_of(u.num_slices, s)));
    for (size_t s = 0; s < slices; ++s)
      factors[s] *= std::max(root_mean(weights, rule.scales_experts, s), rule.minimum_scale);
  }
  return factors;
}

int64_t rows_of_block(const Factoring& f) { return std::max(kBlockRows, kChunk / f.columns); }

// Sums over the rows of each block: working memory of a factored update.
Tensor empty_partial_sums(const Factoring& f, const Tensor& gradient) {
  if (!f.is_factored()) return Tensor();
  return Tensor::empty({f.batches * num_chunks(f.rows, rows_of_block(f)), f.columns},
                       gradient.dtype(), gradient.device());
}

// The new moments: means of G over columns and over rows, decayed into the slots.
template <class T, class Step>
void update_factors(const AdafactorUpdate& u, const Tensor& partial, Step step) {
  const Factoring& f = *u.factoring;
  const T* gradient = u.gradient.data<T>();
  T *row = u.row.data<T>(), *column = u.column.data<T>();
  const T beta2 = static_cast<T>(u.beta2), keep2 = static_cast<T>(1.0 - u.beta2);
  const T epsilon = static_cast<T>(kEpsilon);
  const int64_t block_rows = rows_of_block(f), blocks = num_chunks(f.rows, block_rows);
  parallel_for(f.batches * blocks, 1, [&](int64_t task, int64_t) {
    const int64_t b = task / blocks, first = task % blocks * block_rows;
    T* sums = partial.data<T>() + task * f.columns;
    std::fill(sums, sums + f.columns, T(0));
    for (int64_t i = first; i < std::min(f.rows, first + block_rows); ++i) {
      const T total =
          add_squares(gradient + b * f.batch_stride + i * f.row_stride, step, sums, f.columns);
      T& slot = row[b * f.rows + i];
      slot = beta2 * slot + keep2 * (total / static_cast<T>(f.columns) + epsilon);
    }
  });
  const int64_t pieces = num_chunks(f.columns, 256);
  parallel_for(f.batches * pieces, 1, [&](int64_t task, int64_t) {
    const int64_t b = task / pieces, begin = task % pieces * 256;
    const int64_t count = std::min<int64_t>(256, f.columns - begin);
    std::array<double, 256> totals{};
    for (int64_t block = 0; block < blocks; ++block) {
      const T* sums = partial.data<T>() + (b * blocks + block) * f.columns + begin;
      for (int64_t j = 0; j < count; ++j) totals[j] += static_cast<double>(sums[j]);
    }
    for (int64_t j = 0; j < count; ++j) {
      T& slot = column[b * f.columns + begin + j];
      const auto mean = static_cast<T>(totals[j] / static_cast<double>(f.rows));
      slot = beta2 * slot + keep2 * (mean + epsilon);
    }
  });
}

// Calls body(row of all rows, first element) for every row of a factored weight, on all threads.
template <class Body>
void for_each_row(const Factoring& f, Body&& body) {
  const int64_t chunk = std::max<int64_t>(1, kChunk / f.columns);
  parallel_for(f.batches * f.rows, chunk, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; ++at)
      body(at, at / f.rows * f.batch_stride + at % f.rows * f.row_stride);
  });
}

template <class T, class Step>
void update_factored(const AdafactorUpdate& u, const AdafactorRule& rule, const Tensor& partial,
                     Step step) {
  update_factors<T>(u, partial, step);
  const Factoring& f = *u.factoring;
  const T *gradient = u.gradient.data<T>(), *row = u.row.data<T>(), *column = u.column.data<T>();
  std::vector<double> row_scale(static_cast<size_t>(f.batches * f.rows));
  for (int64_t b = 0; b < f.batches; ++b) {
    const T* rows = row + b * f.rows;
    const double mean = std::accumulate(rows, rows + f.rows, 0.0) / static_cast<double>(f.rows);
    for (int64_t i = 0; i < f.rows; ++i)
      row_scale[b * f.rows + i] = 1.0 / std::sqrt(static_cast<double>(rows[i]) / mean);
  }
  std::vector<T> column_scale(static_cast<size_t>(f.batches * f.columns));
  for (size_t at = 0; at < column_scale.size(); ++at)
    column_scale[at] = T(1) / std::sqrt(column[at]);

  std::vector<double> row_squares(row_scale.size());
  for_each_row(f, [&](int64_t at, int64_t first) {
    const T* scale = column_scale.data() + at / f.rows * f.columns;
    row_squares[at] =
        row_scale[at] * row_scale[at] *
        static_cast<double>(sum_of_scaled_squares(gradient + first, step, scale, f.columns));
  });
  // Slices are the leading dimension, which is never the column of a stack: a row lies in one.
  const int64_t slice_size = u.weight.numel() / u.num_slices;
  auto slice_of = [&](int64_t at) {
    return (at / f.rows * f.batch_stride + at % f.rows * f.row_stride) / slice_size;
  };
  std::vector<double> squares(static_cast<size_t>(u.num_slices));
  for (int64_t at = 0; at < f.batches * f.rows; ++at) squares[slice_of(at)] += row_squares[at];

  const std::vector<double> factors = slice_factors(u, rule, squares);
  T* momentum = rule.beta1 > 0 ? u.momentum.data<T>() : nullptr;
  const T keep = static_cast<T>(1.0 - rule.weight_decay);
  for_each_row(f, [&](int64_t at, int64_t first) {
    const T by = static_cast<T>(factors[slice_of(at)] * row_scale[at]);
    const T* scale = column_scale.data() + at / f.rows * f.columns;
    change_weights<T>(u.weight, first, step, f.columns,
                      [&](T* weight, auto weight_step, int64_t j, int64_t count) {
                        const int64_t place = first + j * step;
                        subtract(weight, weight_step, gradient + place,
                                 momentum ? momentum + place : nullptr, step, by, scale + j, keep,
                                 static_cast<T>(rule.beta1), static_cast<T>(1.0 - rule.beta1),
                                 count);
                      });
  });
}

template <class T>
void update_unfactored(const AdafactorUpdate& u, const AdafactorRule& rule) {
  const int64_t size = u.weight.numel() / u.num_slices, chunks = num_chunks(size, kChunk);
  const T* gradient = u.gradient.data<T>();
  T* second = u.second.data<T>();
  std::vector<double> squares;
  for (int64_t s = 0; s < u.num_slices; ++s) {
    std::vector<double> partial(static_cast<size_t>(chunks));
    parallel_for(size, kChunk, [&](int64_t begin, int64_t end, int64_t chunk) {
      partial[chunk] =
          update_second_moment(gradient + s * size + begin, second + s * size + begin,
                               static_cast<T>(u.beta2), static_cast<T>(1.0 - u.beta2), end - begin);
    });
    squares.push_back(std::accumulate(partial.begin(), partial.end(), 0.0));
  }
  const std::vector<double> factors = slice_factors(u, rule, squares);
  T* momentum = rule.beta1 > 0 ? u.momentum.data<T>() : nullptr;
  for (int64_t s = 0; s < u.num_slices; ++s) {
    parallel_for(size, kChunk, [&](int64_t begin, int64_t end) {
      change_weights<T>(u.weight, s * size + begin, One{}, end - begin,
                        [&](T* weight, One, int64_t j, int64_t count) {
                          const int64_t at = s * size + begin + j;
                          subtract_unfactored(
                              weight, gradient + at, second + at,
                              momentum ? momentum + at : nullptr, static_cast<T>(factors[s]),
                              static_cast<T>(1.0 - rule.weight_decay), static_cast<T>(rule.beta1),
                              static_cast<T>(1.0 - rule.beta1), count);
                        });
    });
  }
}

// Slice `s` of a stack as a weight of its own.
AdafactorUpdate one_slice(const AdafactorUpdate& u, int64_t s, const Factoring& factoring) {
  auto slice = [&](const Tensor& stack) {
    return stack.defined() ? stack.reshape({u.num_slices, -1}).slice(0, s, s + 1) : stack;
  };
  UpdatedWeight weight{u.weight.weight.slice_of(u.num_slices, s), slice(u.weight.rounded),
                       u.weight.rounding_key, s * (u.weight.numel() / u.num_slices)};
  return {weight,          slice(u.gradient), slice(u.row), slice(u.column),
          slice(u.second), slice(u.momentum), &factoring,   1,
          u.beta2,         u.learning_rate};
}

// Experts that do not depend on each other go one by one: the second and third pass over an
// expert's gradient find it in the cache.
bool is_separable(const AdafactorUpdate& u, const AdafactorRule& rule) {
  return u.num_slices > 1 && rule.factors_experts && rule.scales_experts && rule.clips_experts;
}

Factoring factoring_of_slice(const AdafactorUpdate& u) {
  Factoring factoring = *u.factoring;
  factoring.batches /= u.num_slices;
  return factoring;
}

void update_whole(const AdafactorUpdate& u, const AdafactorRule& rule, const Tensor& partial) {
  auto run = [&](auto tag) {
    using T = decltype(tag);
    if (!u.factoring->is_factored()) return update_unfactored<T>(u, rule);
    with_step(u.factoring->column_stride,
              [&](auto step) { update_factored<T>(u, rule, partial, step); });
  };
  u.weight.dtype() == DType::f64 ? run(double{}) : run(float{});
}

void update_cpu(const AdafactorUpdate& u, const AdafactorRule& rule) {
  if (!is_separable(u, rule))
    return update_whole(u, rule, empty_partial_sums(*u.factoring, u.gradient));
  const Factoring factoring = factoring_of_slice(u);
  const Tensor partial = empty_partial_sums(factoring, u.gradient);
  for (int64_t s = 0; s < u.num_slices; ++s)
    update_whole(one_slice(u, s, factoring), rule, partial);
}

void update_plan(const AdafactorUpdate& u, const AdafactorRule& rule) {
  empty_partial_sums(is_separable(u, rule) ? factoring_of_slice(u) : *u.factoring, u.gradient);
}

STMOE_REGISTER_KERNELS(AdafactorKernels, cpu, {update_cpu})
STMOE_REGISTER_KERNELS(AdafactorKernels, plan, {update_plan})

}  // namespace
}  // namespace stmoe
