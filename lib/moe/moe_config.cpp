// SPDX-License-Identifier: Apache-2.0
#include "lib/moe/moe_config.h"

namespace stmoe {

void MoeConfig::validate(Problems& problems) const {
  router.factory().validate(router.box(), *this, problems);
}

int64_t experts_per_token(const MoeConfig& moe) {
  return moe.router.factory().experts_per_token(moe.router.box(), moe);
}

}  // namespace stmoe
