// SPDX-License-Identifier: Apache-2.0
#include "lib/data/data_config.h"

#include "lib/data/vocabulary.h"

namespace stmoe {

void CorpusConfig::validate(Problems& problems) const {
  if (path.empty()) problems.add("path", "is missing; name a corpus made by stmoe-data corpus");
}

void DataConfig::validate(Problems& problems) const {
  if (input_length < 2 || !(noise_density > 0 && noise_density < 1) || mean_span_length < 1) return;
  const SpanCorruptionLengths needed = lengths();
  if (needed.spans > kNumSentinels)
    problems.add("mean_span_length",
                 "is {}: inputs of {} tokens would have {} masked spans, there are {} sentinels; "
                 "raise mean_span_length or lower input_length",
                 mean_span_length, input_length, needed.spans, kNumSentinels);
  if (target_length > 0 && target_length < needed.targets)
    problems.add(
        "target_length",
        "is {}, but inputs of {} tokens with noise_density {} and mean_span_length {} need "
        "{}; raise it, or set 0 to have it computed",
        target_length, input_length, noise_density, mean_span_length, needed.targets);
}

}  // namespace stmoe
