// SPDX-License-Identifier: Apache-2.0
#include "lib/moe/routing_statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/ops/routing_counts.h"

namespace stmoe {
namespace {

double ratio(double part, double whole) { return whole > 0 ? part / whole : 0.0; }

double even_share(const std::vector<double>& load_E) {
  if (load_E.empty()) return 0;
  return std::accumulate(load_E.begin(), load_E.end(), 0.0) / static_cast<double>(load_E.size());
}

}  // namespace

RoutingStatistics statistics_of(std::span<const double> counts, double entropy) {
  STMOE_CHECK(counts.size() > kNumRoutingCounts, "routing statistics: of {} counts", counts.size());
  const size_t experts = counts.size() - kNumRoutingCounts;
  const auto sum = [&](RoutingCount what) { return counts[experts + static_cast<size_t>(what)]; };
  RoutingStatistics result;
  result.pairs = sum(RoutingCount::pairs);
  result.dropped_fraction = ratio(sum(RoutingCount::dropped), result.pairs);
  result.left_behind_fraction = ratio(sum(RoutingCount::left_behind), sum(RoutingCount::tokens));
  result.entropy = entropy;
  for (double count : counts.first(experts)) result.load_E.push_back(ratio(count, result.pairs));
  result.spread = load_spread(result.load_E);
  return result;
}

RoutingStatistics statistics_of(const RoutingTally& tally) {
  const Tensor counts = tally.counts.on(Device::cpu);
  return statistics_of(counts.span<double>(), tally.entropy.defined() ? tally.entropy.item() : 0.0);
}

void add_scaled(RoutingStatistics& total, const RoutingStatistics& part, double share) {
  total.dropped_fraction += share * part.dropped_fraction;
  total.left_behind_fraction += share * part.left_behind_fraction;
  total.entropy += share * part.entropy;
  total.pairs += share * part.pairs;
  total.spread.max += share * part.spread.max;
  total.spread.p90 += share * part.spread.p90;
  total.spread.median += share * part.spread.median;
  total.spread.p10 += share * part.spread.p10;
  total.load_E.resize(std::max(total.load_E.size(), part.load_E.size()));
  for (size_t e = 0; e < part.load_E.size(); ++e) total.load_E[e] += share * part.load_E[e];
}

LoadSpread load_spread(const std::vector<double>& load_E) {
  const double even = even_share(load_E);
  if (even <= 0) return {};
  std::vector<double> load = load_E;
  std::ranges::sort(load);
  auto percentile = [&](double fraction) {
    const double place = fraction * static_cast<double>(load.size() - 1);
    const auto below = static_cast<size_t>(place);
    const size_t above = std::min(below + 1, load.size() - 1);
    return std::lerp(load[below], load[above], place - static_cast<double>(below)) / even;
  };
  return {load.back() / even, percentile(0.9), percentile(0.5), percentile(0.1)};
}

int64_t experts_below(const std::vector<double>& load_E, double limit) {
  const double most = limit * even_share(load_E);
  return std::ranges::count_if(load_E, [&](double share) { return share < most || share <= 0; });
}

}  // namespace stmoe
