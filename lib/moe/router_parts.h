// SPDX-License-Identifier: Apache-2.0
// What several routers share: rules about where they may be used, and losses that are not there.
#pragma once

#include "lib/moe/moe_config.h"
#include "lib/moe/router.h"

namespace stmoe {

struct SoftmaxWithLse;

// A problem when the router serves a decoder and `is_allowed` (its key allow_in_decoder) is false.
// `why`: what it looks at, as in "it looks at later tokens".
void refuse_in_decoder(const RouterUse& use, bool is_allowed, std::string_view why,
                       Problems& problems);

// A problem when moe.router_z_loss is above 0 and this router, which has no such loss, is the only
// one. `why` as in "it has no logits".
void refuse_router_z_loss(const RouterUse& use, std::string_view why, Problems& problems);

// A loss of a router that has none: 0, in the type and on the device of its weights.
Var no_loss(const Var& weights);

// The rest of a routing whose choices and slots are there, for a router with probabilities and a
// z-loss but no load-balance loss; also of the tally, unless its counts are there. mask_N: the
// tokens that count in the entropy; undefined: all.
void finish_without_balance(Routing& routing, const Var& logits_NE, const SoftmaxWithLse& softmax,
                            const Tensor& mask_N);

}  // namespace stmoe
