// SPDX-License-Identifier: Apache-2.0
#include "lib/train/update_guard.h"

#include <cmath>
#include <numeric>
#include <vector>

#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/base/log.h"
#include "lib/optim/gradients.h"

namespace stmoe {

std::string first_non_finite(const ParameterList& parameters, double loss, double gradient_norm) {
  if (std::isfinite(loss) && std::isfinite(gradient_norm)) return "";
  if (const std::string weight = first_non_finite_weight(parameters); !weight.empty())
    return weight;
  if (!std::isfinite(loss)) return "the loss";
  if (auto name = first_non_finite_gradient(parameters)) return "the gradient of " + *name;
  return "the gradient norm";
}

std::string first_non_finite_weight(const ParameterList& parameters) {
  std::vector<Tensor> weights;
  for (const Parameter& parameter : parameters) weights.push_back(parameter.value.weight().value);
  const auto first = first_non_finite(weights);
  return first ? parameters[*first].name : "";
}

bool UpdateGuard::is_spike(double loss) const {
  if (config_.threshold <= 0 || static_cast<int64_t>(recent_.size()) < config_.window) return false;
  const double mean =
      std::accumulate(recent_.begin(), recent_.end(), 0.0) / static_cast<double>(recent_.size());
  return loss > mean + config_.threshold;
}

UpdateGuard::Verdict UpdateGuard::judge(int64_t step, double loss, const std::string& non_finite) {
  if (non_finite.empty() && !is_spike(loss)) {
    recent_.push_back(loss);
    if (static_cast<int64_t>(recent_.size()) > config_.window) recent_.pop_front();
    skipped_in_row_ = 0;
    return Verdict::apply;
  }
  ++skipped_;
  ++skipped_in_row_;
  const std::string what = non_finite.empty() ? format("the loss {:.4f} is a spike", loss)
                                              : non_finite + " is not finite";
  if (skipped_in_row_ <= config_.max_skipped) {
    log_warn("[train] step {}: {}; update skipped ({} in a row, {} in all)", step, what,
             skipped_in_row_, skipped_);
    return Verdict::skip;
  }
  if (rollbacks_ >= config_.max_rollbacks)
    throw DivergedError(
        format("training diverged at step {}: {} ({} updates skipped, {} roll-backs); lower the "
               "learning rate, set train.gradient_clip or use precision.compute: f32",
               step, what, skipped_, rollbacks_));
  log_warn("[train] step {}: {}; going back to the last checkpoint", step, what);
  return Verdict::roll_back;
}

void UpdateGuard::rolled_back() {
  ++rollbacks_;
  skipped_in_row_ = 0;
}

std::string UpdateGuard::state() const {
  return nlohmann::ordered_json{{"recent", recent_},
                                {"skipped", skipped_},
                                {"skipped_in_row", skipped_in_row_},
                                {"rollbacks", rollbacks_}}
      .dump();
}

void UpdateGuard::restore(const std::string& json) {
  const auto state = nlohmann::json::parse(json);
  recent_ = state.at("recent").get<std::deque<double>>();
  skipped_ = state.at("skipped");
  skipped_in_row_ = state.at("skipped_in_row");
  rollbacks_ = state.at("rollbacks");
}

}  // namespace stmoe
