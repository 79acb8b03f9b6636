// SPDX-License-Identifier: Apache-2.0
#include "lib/base/profile.h"

#include <algorithm>
#include <chrono>
#include <map>

namespace stmoe {
namespace {

struct Profile {
  bool active = false;
  OpScope* innermost = nullptr;
  std::map<std::string, OpTime> by_op;
};

thread_local Profile profile;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

OpScope::OpScope(const char* op, Pass pass)
    : op_(op), pass_(pass), parent_(profile.innermost), active_(profile.active) {
  if (!active_) return;
  profile.innermost = this;
  start_ = now();
}

OpScope::~OpScope() {
  if (!active_) return;
  const double whole = now() - start_;
  profile.innermost = parent_;
  if (parent_) parent_->inner_ += whole;
  OpTime& time = profile.by_op[op_];
  time.op = op_;
  ++time.calls;
  (pass_ == Pass::forward ? time.forward_seconds : time.backward_seconds) += whole - inner_;
}

void start_profile() {
  profile.by_op.clear();
  profile.active = true;
}

void stop_profile() { profile.active = false; }

std::vector<OpTime> profile_by_op() {
  std::vector<OpTime> rows;
  for (const auto& [name, time] : profile.by_op) rows.push_back(time);
  auto total = [](const OpTime& t) { return t.forward_seconds + t.backward_seconds; };
  std::sort(rows.begin(), rows.end(),
            [&](const OpTime& a, const OpTime& b) { return total(a) > total(b); });
  return rows;
}

}  // namespace stmoe
