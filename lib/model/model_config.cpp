// SPDX-License-Identifier: Apache-2.0
#include "lib/model/model_config.h"

#include <set>

#include "lib/moe/moe_config.h"

namespace stmoe {
namespace {

void check_layers(const char* key, const std::vector<int64_t>& sparse_layers, const char* stack,
                  int64_t num_layers, Problems& problems) {
  std::set<int64_t> seen;
  for (int64_t layer : sparse_layers) {
    if (layer < 0 || layer >= num_layers)
      problems.add(key, "layer {} does not exist; model.{} is {}, so layers are 0 to {}", layer,
                   stack, num_layers, num_layers - 1);
    if (!seen.insert(layer).second) problems.add(key, "layer {} is listed twice", layer);
  }
}

}  // namespace

void ModelConfig::validate(Problems& problems) const {
  if (relative_buckets % 2 != 0)
    problems.add("relative_buckets",
                 "is {}, must be even: the encoder uses half of them for each direction",
                 relative_buckets);
  if (relative_max_distance <= relative_buckets / 2)
    problems.add("relative_max_distance",
                 "is {}, must be more than half of relative_buckets ({}), whose first half holds "
                 "single distances",
                 relative_max_distance, relative_buckets);
}

void validate_sparse_layers(const ModelConfig& model, const MoeConfig& moe, Problems& problems) {
  check_layers("moe.encoder_sparse_layers", moe.encoder_sparse_layers, "encoder_layers",
               model.encoder_layers, problems);
  check_layers("moe.decoder_sparse_layers", moe.decoder_sparse_layers, "decoder_layers",
               model.decoder_layers, problems);
}

}  // namespace stmoe
