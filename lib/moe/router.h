// SPDX-License-Identifier: Apache-2.0
// Routers decide which experts see a token, where its row lies in their buffers, and with what
// weight the results are added up. A router is one file in lib/moe/routers, with a nested Config
// and one line STMOE_REGISTER; whatever its kind it returns the same plain struct, and the layer
// never asks which router it has (docs/design/routing.md). N tokens, D width, G groups, K choices,
// E experts.
#pragma once

#include <memory>

#include "lib/autograd/var.h"
#include "lib/base/format.h"
#include "lib/base/random.h"
#include "lib/config/choice.h"
#include "lib/config/problems.h"
#include "lib/moe/routing_statistics.h"
#include "lib/nn/parameters.h"

namespace stmoe {

struct MoeConfig;

// The stack of a sparse layer. In the decoder a token must not be routed by what comes after it.
enum class StackKind : uint8_t { encoder, decoder };

// The two factors of the load-balance loss E mean_g sum_e f P, for recipes that join layers before
// they are multiplied (loss_over_layers: stacks).
struct BalanceParts {
  Tensor share_GE;
  Var probability_GE;
  bool defined() const { return probability_GE.defined(); }
};

struct Routing {
  // i32: the chosen experts, those of one token distinct; -1: no choice.
  Tensor expert_NK;
  // i32: the row among the expert's num_groups * capacity rows, group * capacity + position; -1:
  // dropped. No row is used twice.
  Tensor slot_NK;
  // Combine weights, f32 (f64 when the tokens are f64), differentiable. Entries without a row are
  // ignored.
  Var weight_NK;
  // Rows of a group in each expert. Usually the context's; a router without a fixed capacity sets
  // its own.
  int64_t num_groups = 1, capacity = 0;
  // One element each, in the weights' type, not multiplied by coefficients; a constant 0 where a
  // router has none.
  Var load_balance_loss, router_z_loss;
  // What the experts see in place of the tokens (Hugging Face's jitter reaches them); undefined:
  // the tokens.
  Var expert_input_ND;
  // f [G, E] and P [G, E], the mean of p over a group, where RouterShape::wants_balance_parts.
  BalanceParts balance;
  RoutingTally tally;
};

// What a router is told beside the tokens.
struct RouterContext {
  bool is_training = false;
  // Random numbers of this layer and step, and the index of the first token in the global batch:
  // numbers are drawn at global indices.
  RandomKey key;
  int64_t first_token = 0;
  // Tokens are group-major; every group has N / num_groups of them and routes on its own.
  int64_t num_groups = 1;
  // Rows that a group may fill in each expert: the factor's, or in generation as many as tokens.
  int64_t capacity = 0;
  // The factor's, also in generation: for routers whose experts choose.
  int64_t factor_capacity = 0;
  // i32, 1 real token, 0 padding; undefined: all real.
  Tensor mask_N;
  // i32, the tokens' ids, for routers that look at them; undefined where the caller does not give
  // them.
  Tensor token_id_N;
};

// What a router is built from; its weights go under its scope.
struct RouterShape {
  int64_t d_model = 0, num_experts = 0;
  Initializer initializer;
  bool wants_balance_parts = false;
};

// Where a recipe uses a router: what its rules may look at.
struct RouterUse {
  const MoeConfig& moe;
  std::string section;  // "router" or "decoder_router"
  bool is_in_encoder = false, is_in_decoder = false;

  // A key of the router, relative to the section `moe`: "router.k".
  std::string key(std::string_view name) const { return format("{}.{}", section, name); }
};

class Router {
 public:
  static constexpr const char* kKind = "router";
  static constexpr const char* kDefaultKind = "top_k";
  // Made by router_factory below.
  struct Factory {
    ConfigBox (*make_config)();
    std::unique_ptr<Router> (*make)(const ConfigBox& config, const RouterShape& shape,
                                    const ParameterScope& scope);
    // Fills keys that the recipe left null by what `moe.follows` says.
    void (*resolve)(ConfigBox& config, const MoeConfig& moe);
    // Rules between the router's keys, the layer's, and where it is used.
    void (*validate)(const ConfigBox& config, const RouterUse& use, Problems& problems);
    // Experts that compute each token in the mean, capacity aside: for counts of FLOPs and of
    // active parameters.
    double (*experts_per_token)(const ConfigBox& config, const MoeConfig& moe);
    bool gives_balance_parts;
  };

  virtual ~Router() = default;
  // x_ND floating, the tokens as the experts see them.
  virtual Routing route(const Var& x_ND, const RouterContext& context) const = 0;
};

// The factory of a router class with
//   struct Config { visit; void validate_in(const RouterUse&, Problems&) const; double
//   experts_per_token(const MoeConfig&) const; and, where keys may be null, void resolve(const
//   MoeConfig&); }; a constructor (const Config&, const RouterShape&, const ParameterScope&); and
//   `static constexpr bool kGivesBalanceParts = true` if it fills Routing::balance.
template <class R>
Router::Factory router_factory() {
  using Config = typename R::Config;
  return {[] { return ConfigBox::of<Config>(); },
          [](const ConfigBox& config, const RouterShape& shape,
             const ParameterScope& scope) -> std::unique_ptr<Router> {
            return std::make_unique<R>(config.as<Config>(), shape, scope);
          },
          [](ConfigBox& config, const MoeConfig& moe) {
            if constexpr (requires(Config & c) { c.resolve(moe); })
              config.as<Config>().resolve(moe);
          },
          [](const ConfigBox& config, const RouterUse& use, Problems& problems) {
            config.as<Config>().validate_in(use, problems);
          },
          [](const ConfigBox& config, const MoeConfig& moe) -> double {
            return config.as<Config>().experts_per_token(moe);
          },
          requires {R::kGivesBalanceParts;
}
};  // namespace stmoe
}

}  // namespace stmoe
