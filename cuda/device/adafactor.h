// SPDX-License-Identifier: Apache-2.0
// What Adafactor's kernels for factored and other weights share: moments, the factor of each
// slice's update from partial sums, and the update itself.
#pragma once

#include "cuda/device/vector.h"
#include "cuda/device/warp.h"

namespace stmoe::gpu {

inline constexpr float kEpsilon = 1e-30f;

// The new moment.
STMOE_DEVICE float decayed(float before, float mean, float beta2, float keep2) {
  return beta2 * before + keep2 * (mean + kEpsilon);
}

// Which partial sums make up slice s: rows s * slice_step + k * row_step, k < count, of `strips`
// sums each, which for an update are multiplied by row_scale^2 (null: by 1).
struct SlicePart {
  int64_t count, slice_step, row_step, strips;
  const double* row_scale;
};

// What an update is multiplied by.
struct FactorRule {
  double learning_rate, clipping_threshold, minimum_scale, slice_size;
  int64_t slices;
  bool is_scaled, clips_slices, scales_slices;
};

// From the sums of u^2 and w^2 and how many elements are in each.
STMOE_DEVICE double factor_of(const FactorRule& rule, double updates, double update_size,
                              double weights, double weight_size) {
  double factor = rule.learning_rate;
  if (rule.clipping_threshold > 0) {
    const double excess = sqrt(updates / update_size) / rule.clipping_threshold;
    factor /= 1.0 < excess ? excess : 1.0;
  }
  if (rule.is_scaled) {
    const double scale = sqrt(weights / weight_size);
    factor *= scale < rule.minimum_scale ? rule.minimum_scale : scale;
  }
  return factor;
}

// A block has a slice. Where all is decided slice by slice, the factor is written at once.
template <class P>
STMOE_KERNEL finish_slices(double* factors, double* updates, double* weights,
                           const P* update_partial, const P* weight_partial, SlicePart part,
                           FactorRule rule) {
  STMOE_SHARED(double, of_updates, 32);
  STMOE_SHARED(double, of_weights, 32);
  const int64_t slice = block_index();
  double update = 0, weight = 0;
  for (int64_t k = thread_index(); k < part.count; k += block_threads()) {
    const int64_t row = slice * part.slice_step + k * part.row_step;
    double sum = 0;
    for (int64_t strip = 0; strip < part.strips; ++strip) {
      sum += static_cast<double>(update_partial[row * part.strips + strip]);
      if (rule.is_scaled) weight += static_cast<double>(weight_partial[row * part.strips + strip]);
    }
    const double scale = part.row_scale ? part.row_scale[row] : 1.0;
    update += scale * scale * sum;
  }
  update = block_sum(update, of_updates);
  weight = block_sum(weight, of_weights);
  if (thread_index() == 0) {
    updates[slice] = update;
    weights[slice] = weight;
    if (rule.slices == 1 || (rule.clips_slices && rule.scales_slices))
      factors[slice] = factor_of(rule, update, rule.slice_size, weight, rule.slice_size);
  }
}

// One block, for what is decided over the whole stack.
STMOE_KERNEL finish_stack(double* factors, const double* updates, const double* weights,
                          FactorRule rule) {
  STMOE_SHARED(double, of_updates, 32);
  STMOE_SHARED(double, of_weights, 32);
  double update = 0, weight = 0;
  for (int64_t s = thread_index(); s < rule.slices; s += block_threads()) {
    update += updates[s];
    weight += weights[s];
  }
  update = block_sum(update, of_updates);
  weight = block_sum(weight, of_weights);
  const double all = rule.slice_size * static_cast<double>(rule.slices);
  for (int64_t s = thread_index(); s < rule.slices; s += block_threads())
    factors[s] = factor_of(
        rule, rule.clips_slices ? updates[s] : update, rule.clips_slices ? rule.slice_size : all,
        rule.scales_slices ? weights[s] : weight, rule.scales_slices ? rule.slice_size : all);
}

// How weight and momentum are carried on.
struct Decay {
  float keep, beta1, keep1;  // 1 - weight decay, the momentum's beta1 and 1 - beta1
};

// weight = keep * weight - delta, delta averaged in the momentum where there is one.
template <int V>
STMOE_DEVICE void subtract(float (&w)[V], float (&delta)[V], float* momentum, const Decay& decay) {
  if (momentum) {
    float m[V];
    load_values<V>(m, momentum);
    STMOE_UNROLL
    for (int i = 0; i < V; ++i) delta[i] = decay.beta1 * m[i] + decay.keep1 * delta[i];
    store_values(momentum, delta);
  }
  STMOE_UNROLL
  for (int i = 0; i < V; ++i) w[i] = decay.keep * w[i] - delta[i];
}

}  // namespace stmoe::gpu
