// SPDX-License-Identifier: Apache-2.0
#include "lib/moe/router_parts.h"

#include <algorithm>

#include "lib/ops/router_entropy.h"
#include "lib/ops/router_z_loss.h"
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
  routing.statistics = routing_statistics(routing.expert_NK, routing.slot_NK, logits_NE.dim(1));
  routing.statistics.entropy =
      router_entropy(softmax.p_NE.value(), logits_NE.value(), softmax.lse_N.value(), mask_N).item();
}

double unchosen_fraction(const Tensor& expert_NK, const Tensor& mask_N) {
  const int64_t tokens = expert_NK.dim(0), k = expert_NK.dim(1);
  const int32_t* expert = expert_NK.data<int32_t>();
  int64_t real = 0, unchosen = 0;
  for (int64_t n = 0; n < tokens; ++n) {
    if (mask_N.defined() && mask_N.data<int32_t>()[n] == 0) continue;
    ++real;
    unchosen += std::all_of(expert + n * k, expert + (n + 1) * k, [](int32_t e) { return e < 0; });
  }
  return real > 0 ? static_cast<double>(unchosen) / static_cast<double>(real) : 0.0;
}

}  // namespace stmoe
