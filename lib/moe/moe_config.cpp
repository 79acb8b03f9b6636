// SPDX-License-Identifier: Apache-2.0
#include "lib/moe/moe_config.h"

namespace stmoe {

void MoeConfig::validate(Problems& problems) const {
  if (groups != "tokens" && group_size > 0)
    problems.add("group_size", "is {}, but groups is {}: set group_size to 0, or groups to tokens",
                 group_size, groups);
  router.factory().validate(router.box(), *this, problems);
}

int64_t experts_per_token(const MoeConfig& moe) {
  return moe.router.factory().experts_per_token(moe.router.box(), moe);
}

}  // namespace stmoe
