// SPDX-License-Identifier: Apache-2.0
#include "lib/moe/router_parts.h"

#include "lib/ops/router_entropy.h"
#include "lib/ops/router_z_loss.h"
#include "lib/ops/routing_counts.h"
#include "lib/ops/softmax_with_lse.h"

namespace stmoe {

void refuse_in_decoder(const RouterUse& use, bool is_allowed, std::string_view why,
                       Problems& problems) {
  if (use.is_in_decoder && !is_allowed)
    problems.add(use.key("kind"),
                 "cannot be in the decoder: {}, so a token would be routed by what follows it, "
                 "which is not there when text is generated; give the decoder a router of its own "
                 "(decoder_router), or set {} to true",
                 why, use.key("allow_in_decoder"));
}

void refuse_router_z_loss(const RouterUse& use, std::string_view why, Problems& problems) {
  if (*use.moe.router_z_loss > 0 && !use.moe.decoder_router)
    problems.add("router_z_loss", "is {}, but the router has no such loss: {}; set it to 0",
                 *use.moe.router_z_loss, why);
}

Var no_loss(const Var& weights) {
  return Var(Tensor::zeros({1}, weights.dtype(), weights.device()));
}

void finish_without_balance(Routing& routing, const Var& logits_NE, const SoftmaxWithLse& softmax,
                            const Tensor& mask_N) {
  routing.load_balance_loss = no_loss(softmax.p_NE);
  routing.router_z_loss = router_z_loss(softmax.lse_N);
  if (!routing.tally.counts.defined())
    routing.tally.counts = routing_counts(routing.expert_NK, routing.slot_NK, logits_NE.dim(1));
  routing.tally.entropy =
      router_entropy(softmax.p_NE.value(), logits_NE.value(), softmax.lse_N.value(), mask_N);
}

}  // namespace stmoe
