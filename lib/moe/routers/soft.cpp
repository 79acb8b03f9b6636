// SPDX-License-Identifier: Apache-2.0
// Soft mixture: every expert computes every token, weighted by the gate (Jacobs et al. 1991;
// Eigen, Ranzato, Sutskever 2013, "Learning factored representations in a deep mixture of experts",
// section 2).
//   gate_hidden: 0   p = softmax(x W)
//   gate_hidden: H   p = softmax(relu(x A + a) B + b), the gate of the 2013 paper; kernel is B
//   balance_margin   in training, weights are held back from experts that are ahead (hold_back.h)
//   and the rest renormalised: the constraint of the paper's first training phase
// K = E, no capacity, nothing is dropped, no balance loss; z-loss: mean lse^2. The reference that
// sparse routers approximate, at E times the arithmetic of one expert.
#include "lib/moe/router_parts.h"
#include "lib/ops/activation.h"
#include "lib/ops/add.h"
#include "lib/ops/choose_all.h"
#include "lib/ops/expert_bias.h"
#include "lib/ops/hold_back.h"
#include "lib/ops/linear.h"
#include "lib/ops/reshape.h"
#include "lib/ops/router_input.h"
#include "lib/ops/softmax_with_lse.h"

namespace stmoe {
namespace {

// y = x kernel + bias.
struct AffineLayer {
  AffineLayer() = default;
  AffineLayer(const ParameterScope& scope, int64_t in, int64_t out, const Initializer& initializer)
      : kernel_IO(scope.create("kernel", {in, out}, initializer)),
        bias_O(scope.create("bias", {out}, Initializer::constant(0))) {}

  Var forward(const Var& x_NI) const {
    // One expert's rows; made on the device, which copies nothing from the host.
    const Tensor first_row = Tensor::zeros({2}, DType::i32, x_NI.device());
    first_row.slice(0, 1, 2).fill(static_cast<double>(x_NI.dim(0)));
    return expert_bias(linear(x_NI, kernel_IO), reshape(bias_O, {1, bias_O.dim(0)}), first_row,
                       ExpertBias::additive);
  }

  Var kernel_IO, bias_O;
};

class SoftRouter final : public Router {
 public:
  struct Config {
    int64_t gate_hidden = 0;
    double balance_margin = 0;
    std::string padding = "routed";

    void visit(auto& v) {
      v("gate_hidden", gate_hidden,
        "width of the gate's hidden ReLU layer (Deep MoE, 2013: 20 to 64); 0: a linear gate "
        "without biases",
        at_least(0));
      v("balance_margin", balance_margin,
        "in training an expert whose total of weights is ahead of the experts' mean by more than "
        "this, over the tokens of a group so far, is left out (Deep MoE's first phase, with totals "
        "that start anew in each group); 0: never",
        at_least(0.0));
      v("padding", padding, "routed: as any token; skipped: no expert computes it",
        one_of({"routed", "skipped"}));
    }
    void validate_in(const RouterUse&, Problems&) const {}
    double experts_per_token(const MoeConfig& moe) const {
      return static_cast<double>(moe.num_experts);
    }
  };

  SoftRouter(const Config& config, const RouterShape& shape, const ParameterScope& scope)
      : config_(config), num_experts_(shape.num_experts) {
    const int64_t hidden = config.gate_hidden;
    if (hidden == 0) {
      gate_.kernel_IO =
          scope.create("kernel", {shape.d_model, shape.num_experts}, shape.initializer);
    } else {
      hidden_ = AffineLayer(scope / "hidden", shape.d_model, hidden, shape.initializer);
      gate_ = AffineLayer(scope, hidden, shape.num_experts, shape.initializer);
    }
  }

  Routing route(const Var& x_ND, const RouterContext& context) const override {
    const Tensor mask_N = config_.padding == "skipped" ? context.mask_N : Tensor();
    const Var logits_NE = logits(router_input(x_ND, {}));
    const SoftmaxWithLse softmax = softmax_with_lse(logits_NE);

    Routing routing;
    routing.num_groups = 1;
    routing.capacity = x_ND.dim(0);
    routing.weight_NK = softmax.p_NE;
    if (context.is_training && config_.balance_margin > 0) {
      const Var waits_NE(
          hold_back(softmax.p_NE.value(), context.num_groups, config_.balance_margin, mask_N));
      routing.weight_NK = softmax_with_lse(add(logits_NE, waits_NE)).p_NE;
    }
    const AllChosen chosen = choose_all(x_ND.dim(0), num_experts_, x_ND.device(), mask_N);
    routing.expert_NK = chosen.expert_NE;
    routing.slot_NK = chosen.slot_NE;
    finish_without_balance(routing, logits_NE, softmax, mask_N);
    return routing;
  }

 private:
  Var logits(const Var& x_ND) const {
    if (config_.gate_hidden == 0) return linear(x_ND, gate_.kernel_IO);
    return gate_.forward(relu(hidden_.forward(x_ND)));
  }

  Config config_;
  int64_t num_experts_;
  AffineLayer hidden_, gate_;
};

STMOE_REGISTER(Router, "soft", router_factory<SoftRouter>())

}  // namespace
}  // namespace stmoe
