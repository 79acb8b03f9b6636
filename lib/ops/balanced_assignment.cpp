// SPDX-License-Identifier: Apache-2.0
// Why it is optimal: prices p >= 0 keep every token at an expert where score - price is largest,
// and an expert with room has price 0. Both hold at the start. With d the distances from an
// overfull expert to the others by reduced costs (what a move loses after prices) and D that of the
// nearest expert with room, raising p[e] by D - d[e] wherever d[e] < D keeps them true and makes
// the chain cost nothing. When no expert is overfull, these are the conditions of an optimum
// (linear programming duality; Ahuja, Magnanti, Orlin, "Network flows", section 9.7). A chain looks
// only at the experts that are nearer than its end, often none but its start.
#include "lib/ops/balanced_assignment.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "lib/base/profile.h"
#include "lib/base/threads.h"

namespace stmoe {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Row-major scores of the tokens of one group, every one finite.
struct Scores {
  std::vector<double> values;
  int64_t tokens = 0, experts = 0;
  double at(int32_t token, int64_t expert) const {
    return values[static_cast<size_t>(token * experts + expert)];
  }
};

class GroupAssignment {
 public:
  explicit GroupAssignment(Scores scores)
      : scores_(std::move(scores)),
        room_((scores_.tokens + scores_.experts - 1) / scores_.experts),
        expert_(static_cast<size_t>(scores_.tokens)),
        count_(static_cast<size_t>(scores_.experts)),
        price_(static_cast<size_t>(scores_.experts)),
        has_heaps_(static_cast<size_t>(scores_.experts)),
        heaps_(static_cast<size_t>(scores_.experts * scores_.experts)),
        best_(heaps_.size()) {
    for (int32_t t = 0; t < scores_.tokens; ++t) {
      int32_t best = 0;  // equals: the lower index
      for (int32_t e = 1; e < scores_.experts; ++e)
        if (scores_.at(t, e) > scores_.at(t, best)) best = e;
      expert_[static_cast<size_t>(t)] = best;
      ++count_[static_cast<size_t>(best)];
    }
  }

  // Returns the number of chains that it took.
  int64_t balance() {
    int64_t chains = 0;
    for (int64_t source = 0; source < scores_.experts; ++source)
      for (; count_[index(source)] > room_; ++chains) {
        const Paths paths = find_paths(source);
        for (int64_t e = 0; e < scores_.experts; ++e)
          if (paths.distance[index(e)] < paths.distance[index(paths.end)])
            price_[index(e)] += paths.distance[index(paths.end)] - paths.distance[index(e)];
        move_along(paths);
      }
    return chains;
  }
  const std::vector<int32_t>& experts() const { return expert_; }

 private:
  // A token of expert e that could go to f, and what its score gains by that.
  struct Move {
    double gain = -kInfinity;
    int32_t token = -1;
    // For heaps whose first is the largest gain, equals by the lower token.
    bool operator<(const Move& other) const {
      return gain != other.gain ? gain < other.gain : token > other.token;
    }
  };
  // Shortest chains from an overfull expert, up to the nearest expert with room.
  struct Paths {
    std::vector<double> distance;
    std::vector<int64_t> from;   // the expert before; -1: none, or the start
    std::vector<int32_t> token;  // which moves from there
    int64_t end = -1;
  };
  static size_t index(int64_t i) { return static_cast<size_t>(i); }

  size_t pair(int64_t e, int64_t f) const { return index(e * scores_.experts + f); }
  Move move_of(int32_t token, int64_t e, int64_t f) const {
    return {scores_.at(token, f) - scores_.at(token, e), token};
  }

  void make_heaps(int64_t e) {
    has_heaps_[index(e)] = 1;
    for (int64_t f = 0; f < scores_.experts; ++f)
      heaps_[pair(e, f)].reserve(index(count_[index(e)]));
    for (int32_t t = 0; t < scores_.tokens; ++t)
      if (expert_[index(t)] == e)
        for (int64_t f = 0; f < scores_.experts; ++f)
          heaps_[pair(e, f)].push_back(move_of(t, e, f));
    for (int64_t f = 0; f < scores_.experts; ++f) {
      std::vector<Move>& moves = heaps_[pair(e, f)];
      std::make_heap(moves.begin(), moves.end());
      find_best(e, f);
    }
  }

  // Throws tokens away that have left e.
  void find_best(int64_t e, int64_t f) {
    std::vector<Move>& moves = heaps_[pair(e, f)];
    while (!moves.empty() && expert_[index(moves.front().token)] != e) {
      std::pop_heap(moves.begin(), moves.end());
      moves.pop_back();
    }
    best_[pair(e, f)] = moves.empty() ? Move{} : moves.front();
  }

  Paths find_paths(int64_t source) {
    const size_t experts = index(scores_.experts);
    Paths paths{std::vector<double>(experts, kInfinity), std::vector<int64_t>(experts, -1),
                std::vector<int32_t>(experts, -1), -1};
    paths.distance[index(source)] = 0;
    std::vector<char> is_done(experts);
    while (true) {
      size_t nearest = experts;
      for (size_t e = 0; e < experts; ++e)
        if (!is_done[e] && (nearest == experts || paths.distance[e] < paths.distance[nearest]))
          nearest = e;
      STMOE_CHECK(nearest < experts && paths.distance[nearest] < kInfinity,
                  "balanced_assignment: no expert has room");
      paths.end = static_cast<int64_t>(nearest);
      if (count_[nearest] < room_) return paths;
      is_done[nearest] = 1;
      relax(paths, is_done, paths.end);
    }
  }

  // Chains that go on from e.
  void relax(Paths& paths, const std::vector<char>& is_done, int64_t e) {
    if (!has_heaps_[index(e)]) make_heaps(e);
    for (int64_t f = 0; f < scores_.experts; ++f) {
      if (is_done[index(f)]) continue;
      const Move& move = best_[pair(e, f)];
      if (move.token < 0) continue;
      // At least 0 but for rounding.
      const double loss = std::max(0.0, price_[index(f)] - price_[index(e)] - move.gain);
      const double distance = paths.distance[index(e)] + loss;
      if (distance >= paths.distance[index(f)]) continue;
      paths.distance[index(f)] = distance;
      paths.from[index(f)] = e;
      paths.token[index(f)] = move.token;
    }
  }

  void move_along(const Paths& paths) {
    ++count_[index(paths.end)];
    int64_t start = paths.end;
    for (int64_t f = paths.end; paths.from[index(f)] >= 0; f = start) {
      expert_[index(paths.token[index(f)])] = static_cast<int32_t>(f);
      start = paths.from[index(f)];
    }
    --count_[index(start)];
    for (int64_t f = paths.end; paths.from[index(f)] >= 0; f = paths.from[index(f)]) {
      remove_moves(paths.token[index(f)], paths.from[index(f)]);
      if (has_heaps_[index(f)]) add_moves(paths.token[index(f)], f);
    }
  }

  // The token has left e.
  void remove_moves(int32_t token, int64_t e) {
    for (int64_t f = 0; f < scores_.experts; ++f)
      if (best_[pair(e, f)].token == token) find_best(e, f);
  }

  // The token has come to e.
  void add_moves(int32_t token, int64_t e) {
    for (int64_t f = 0; f < scores_.experts; ++f) {
      const Move move = move_of(token, e, f);
      std::vector<Move>& moves = heaps_[pair(e, f)];
      moves.push_back(move);
      std::push_heap(moves.begin(), moves.end());
      if (best_[pair(e, f)] < move) best_[pair(e, f)] = move;
    }
  }

  Scores scores_;
  int64_t room_;  // tokens that an expert may have
  std::vector<int32_t> expert_;
  std::vector<int64_t> count_;
  std::vector<double> price_;
  std::vector<char> has_heaps_;
  // Of every pair of experts: the moves, those of tokens that have left among them, and the best.
  std::vector<std::vector<Move>> heaps_;
  std::vector<Move> best_;
};

template <class T>
Scores scores_of(const Tensor& scores_NE, const std::vector<int64_t>& rows) {
  Scores scores;
  scores.tokens = static_cast<int64_t>(rows.size());
  scores.experts = scores_NE.dim(1);
  double lowest = kInfinity;
  for (int64_t row : rows)
    for (int64_t e = 0; e < scores.experts; ++e) {
      const auto score = static_cast<double>(scores_NE.data<T>()[row * scores.experts + e]);
      scores.values.push_back(score);
      if (std::isfinite(score)) lowest = std::min(lowest, score);
    }
  for (double& score : scores.values)
    if (!std::isfinite(score)) score = lowest < kInfinity ? lowest : 0;
  return scores;
}

int64_t assign_group(int64_t first, int64_t tokens, const Tensor& expert_N1,
                     const Tensor& scores_NE, const Tensor& mask_N) {
  std::vector<int64_t> rows;
  for (int64_t n = first; n < first + tokens; ++n)
    if (!mask_N.defined() || mask_N.data<int32_t>()[n] != 0) rows.push_back(n);
  int32_t* expert = expert_N1.data<int32_t>();
  std::fill_n(expert + first, tokens, -1);
  GroupAssignment assignment(scores_NE.dtype() == DType::f64 ? scores_of<double>(scores_NE, rows)
                                                             : scores_of<float>(scores_NE, rows));
  const int64_t chains = assignment.balance();
  for (size_t i = 0; i < rows.size(); ++i) expert[rows[i]] = assignment.experts()[i];
  return chains;
}

int64_t assign_cpu(const Tensor& expert_N1, const Tensor& scores_NE, int64_t num_groups,
                   const Tensor& mask_N) {
  const int64_t tokens = scores_NE.dim(0) / num_groups;
  std::vector<int64_t> chains(static_cast<size_t>(num_groups));
  parallel_for(num_groups, 1, [&](int64_t group, int64_t) {
    chains[static_cast<size_t>(group)] =
        assign_group(group * tokens, tokens, expert_N1, scores_NE, mask_N);
  });
  return std::accumulate(chains.begin(), chains.end(), int64_t{0});
}

STMOE_REGISTER_KERNELS(BalancedAssignmentKernels, cpu, {assign_cpu})

}  // namespace

BalancedAssignment balanced_assignment(const Tensor& scores_NE, int64_t num_groups,
                                       const Tensor& mask_N) {
  OpScope scope("balanced_assignment", OpScope::Pass::forward);
  STMOE_CHECK(scores_NE.rank() == 2 && scores_NE.dim(1) >= 1 && scores_NE.numel() <= INT32_MAX &&
                  (scores_NE.dtype() == DType::f32 || scores_NE.dtype() == DType::f64),
              "balanced_assignment: scores are {} {}, expected f32 or f64 [tokens, experts]",
              name_of(scores_NE.dtype()), scores_NE.shape().text());
  STMOE_CHECK(num_groups >= 1 && scores_NE.dim(0) % num_groups == 0 &&
                  (!mask_N.defined() || mask_N.numel() == scores_NE.dim(0)),
              "balanced_assignment: {} groups, mask {}, for {} tokens", num_groups,
              mask_N.shape().text(), scores_NE.dim(0));
  BalancedAssignment result;
  result.expert_N1 = Tensor::empty({scores_NE.dim(0), 1}, DType::i32, scores_NE.device());
  // One chain after another, each a search: work for the host, whose tensors these are where the
  // scores are a device's.
  const Tensor scores = scores_NE.contiguous().on(Device::cpu);
  const Tensor mask = mask_N.defined() ? mask_N.contiguous().on(Device::cpu) : mask_N;
  const bool is_here = is_host_memory(scores_NE.device());
  const Tensor expert_N1 =
      is_here ? result.expert_N1 : Tensor::empty(result.expert_N1.shape(), DType::i32);
  result.num_chains = kernels<BalancedAssignmentKernels>(scores.device())
                          .assign(expert_N1, scores, num_groups, mask);
  if (!is_here) result.expert_N1.copy_from(expert_N1);
  return result;
}

}  // namespace stmoe
