// SPDX-License-Identifier: Apache-2.0
#include "lib/data/example_stream.h"

#include "lib/base/error.h"

namespace stmoe {

ExampleStream::ExampleStream(std::vector<Source> sources, const Settings& settings)
    : sources_(std::move(sources)),
      settings_(settings),
      choice_key_(settings.key.fold("choice")),
      noise_key_(settings.key.fold("noise")) {
  STMOE_CHECK(!sources_.empty());
  for (const Source& source : sources_) total_weight_ += source.weight;
}

bool ExampleStream::next(Example& example) {
  if (!sources_[choose_source(example_)].segments.next(segment_)) return false;
  example = corrupt_spans(segment_, settings_.corruption, settings_.first_sentinel,
                          noise_key_.fold(example_));
  append_eos_after_trim(example, settings_.input_length, settings_.target_length);
  ++example_;
  return true;
}

size_t ExampleStream::choose_source(uint64_t example) const {
  double left = RandomStream(choice_key_.fold(example)).uniform() * total_weight_;
  for (size_t i = 0; i + 1 < sources_.size(); ++i) {
    left -= sources_[i].weight;
    if (left < 0) return i;
  }
  return sources_.size() - 1;
}

ExamplePosition ExampleStream::position() const {
  ExamplePosition position{example_, {}};
  for (const Source& source : sources_) position.corpora.push_back(source.segments.position());
  return position;
}

void ExampleStream::restore(const ExamplePosition& position) {
  STMOE_CHECK(position.corpora.size() == sources_.size(), "position of {} corpora, here are {}",
              position.corpora.size(), sources_.size());
  example_ = position.example;
  for (size_t i = 0; i < sources_.size(); ++i) sources_[i].segments.restore(position.corpora[i]);
}

}  // namespace stmoe
