// SPDX-License-Identifier: Apache-2.0
// What one layer's routing did in one step: sums that stay on the device while the step runs, and
// made of them plain numbers for logs and metrics. N tokens, K choices, E experts.
#pragma once

#include <span>
#include <vector>

#include "lib/tensor/tensor.h"

namespace stmoe {

// How even a load is, in units of an even share: 1 everywhere is perfect balance. Percentiles over
// experts are interpolated.
struct LoadSpread {
  double max = 0, p90 = 0, median = 0, p10 = 0;
};
LoadSpread load_spread(const std::vector<double>& load_E);

// Experts with less than `limit` of an even share; 0: those without any token.
int64_t experts_below(const std::vector<double>& load_E, double limit);

struct RoutingStatistics {
  // Of the (token, choice) pairs that name an expert: those without a place.
  double dropped_fraction = 0;
  // Of the tokens that chose at least one expert: those that no expert took (flaxformer's
  // fraction_tokens_left_behind).
  double left_behind_fraction = 0;
  // Mean over routed tokens of the entropy of the router's distribution, in nats; 0 for a router
  // without one.
  double entropy = 0;
  // Share of the pairs that name each expert, before dropping; sums to one.
  std::vector<double> load_E;
  // Of load_E; in a mean, the mean of the spreads, not the spread of the mean: experts that are
  // full in turn show.
  LoadSpread spread;
  // How many pairs that is a share of.
  double pairs = 0;
};

// total += share * part, for means over micro-batches, steps or batches; an empty total takes the
// part's experts.
void add_scaled(RoutingStatistics& total, const RoutingStatistics& part, double share);

// On the device of the routing.
struct RoutingTally {
  Tensor counts;   // f64 [E + 4], as lib/ops/routing_counts.h
  Tensor entropy;  // f64 [1], RoutingStatistics::entropy; undefined: 0
};

// Of the values of a tally, read together with others (Readout).
RoutingStatistics statistics_of(std::span<const double> counts, double entropy);
// Reads the tally: waits for its device.
RoutingStatistics statistics_of(const RoutingTally& tally);

}  // namespace stmoe
