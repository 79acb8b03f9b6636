// SPDX-License-Identifier: Apache-2.0
// Hash layers, random hash (Roller et al. 2021, "Hash layers for large sparse models", section
// 3.1; ParlAI's projects/params_vs_compute): a fixed, random expert for each token id. No router
// weights, no losses, weight 1; training moves nothing here.
//   expert(id) = permutation_b[id mod E],  b = id / E (rounded down), permutation_b random for each
//   b; from 2^18 ids on (rounded up to a multiple of E) they begin again
// Every run of E ids from a multiple of E on has each expert once, so that experts have equally
// many ids, whatever the vocabulary's size; ids near each other are often about equally frequent
// (vocabularies are sorted by frequency), which balances tokens too, as far as one id is not a
// large share of the text by itself. In the decoder the id is that of the layer's input token,
// which is known when text is generated.
#include <algorithm>
#include <numeric>

#include "lib/moe/router_parts.h"
#include "lib/ops/assign_slots.h"
#include "lib/ops/look_up.h"
#include "lib/ops/routing_counts.h"

namespace stmoe {
namespace {

// Experts of the ids. A pure function of the key and the id: what is kept only saves drawing again.
class HashTable {
 public:
  HashTable(RandomKey key, int64_t num_experts)
      : key_(key),
        num_experts_(num_experts),
        period_((kMostIds + num_experts - 1) / num_experts * num_experts) {}

  // For these ids: on a host as far as they go, on a device all of it, once.
  const Tensor& table(const Tensor& id_N) {
    const Device device = id_N.device();
    int64_t ids = is_planning() ? 0 : period_;
    if (is_host_memory(device) && !is_planning()) {
      ids = 0;
      for (int32_t id : id_N.contiguous().span<int32_t>()) ids = std::max<int64_t>(ids, id + 1);
      ids = std::min(ids, period_);
    }
    if (!table_.defined() || is_host_memory(table_.device()) != is_host_memory(device) ||
        table_.numel() < ids) {
      draw(ids);
      // It outlives the step.
      const Tensor drawn = Tensor::empty_on_heap({std::ssize(expert_)}, DType::i32);
      std::copy(expert_.begin(), expert_.end(), drawn.data<int32_t>());
      table_ = drawn;
      if (!is_host_memory(device)) {
        table_ = Tensor::empty_on_heap(drawn.shape(), DType::i32, device);
        table_.copy_from(drawn);
      }
    }
    return table_;
  }
  int64_t period() const { return period_; }

 private:
  // More than any vocabulary has.
  static constexpr int64_t kMostIds = 1 << 18;

  void draw(int64_t ids) {
    while (std::ssize(expert_) < ids) draw_block();
  }
  // The experts of the next num_experts ids: Fisher and Yates' shuffle.
  void draw_block() {
    const size_t first = expert_.size(), count = static_cast<size_t>(num_experts_);
    RandomStream stream(key_.fold(first / count));
    expert_.resize(first + count);
    std::iota(expert_.begin() + static_cast<int64_t>(first), expert_.end(), 0);
    for (size_t i = count - 1; i > 0; --i)
      std::swap(expert_[first + i], expert_[first + stream.below(i + 1)]);
  }

  RandomKey key_;
  int64_t num_experts_, period_;
  std::vector<int32_t> expert_;
  Tensor table_;  // as far as it is drawn
};

class HashRouter final : public Router {
 public:
  struct Config {
    int64_t seed = 0;
    bool per_layer = true;
    std::string capacity = "none";
    std::string padding = "skipped";

    void visit(auto& v) {
      v("seed", seed, "of the table from token ids to experts; not changed by train.seed",
        at_least(0));
      v("per_layer", per_layer, "every layer has a table of its own; false: one table for all");
      v("capacity", capacity,
        "none: an expert takes all its tokens (the paper); factor: as many as the layer's capacity "
        "says, in token order",
        one_of({"none", "factor"}));
      v("padding", padding,
        "skipped: padding, which is one id, has no expert; routed: it has one as any token",
        one_of({"skipped", "routed"}));
    }
    void validate_in(const RouterUse& use, Problems& problems) const {
      refuse_router_z_loss(use, "tokens find their experts by a table, without logits", problems);
    }
    double experts_per_token(const MoeConfig&) const { return 1; }
  };

  HashRouter(const Config& config, const RouterShape& shape, const ParameterScope& scope)
      : config_(config),
        num_experts_(shape.num_experts),
        table_(table_key(config, scope.path()), shape.num_experts) {}

  Routing route(const Var& x_ND, const RouterContext& context) const override {
    const int64_t tokens = x_ND.dim(0);
    STMOE_CHECK(context.token_id_N.defined() && context.token_id_N.numel() == tokens,
                "hash: {} token ids for {} tokens",
                context.token_id_N.defined() ? context.token_id_N.numel() : 0, tokens);
    const Tensor mask_N = config_.padding == "skipped" ? context.mask_N : Tensor();
    const DType dtype = x_ND.dtype() == DType::f64 ? DType::f64 : DType::f32;
    Routing routing;
    routing.num_groups = context.num_groups;
    routing.capacity = config_.capacity == "none" ? tokens / context.num_groups : context.capacity;
    routing.expert_NK =
        look_up(table_.table(context.token_id_N), context.token_id_N, table_.period(), mask_N);
    routing.slot_NK =
        assign_slots(routing.expert_NK, {num_experts_, context.num_groups, routing.capacity, {}});
    routing.weight_NK = Var(Tensor::full({tokens, 1}, dtype, 1.0, x_ND.device()));
    routing.load_balance_loss = routing.router_z_loss = no_loss(routing.weight_NK);
    routing.tally.counts = routing_counts(routing.expert_NK, routing.slot_NK, num_experts_);
    return routing;
  }

 private:
  static RandomKey table_key(const Config& config, const std::string& path) {
    const RandomKey key = RandomKey{static_cast<uint64_t>(config.seed)}.fold("hash");
    return config.per_layer ? key.fold(path) : key;
  }

  Config config_;
  int64_t num_experts_;
  mutable HashTable table_;
};

STMOE_REGISTER(Router, "hash", router_factory<HashRouter>())

}  // namespace
}  // namespace stmoe
