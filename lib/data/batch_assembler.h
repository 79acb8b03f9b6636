// SPDX-License-Identifier: Apache-2.0
// Rows of packed examples, gathered into batches.
#pragma once

#include "lib/data/batch_source.h"
#include "lib/data/example_stream.h"
#include "lib/data/packing.h"

namespace stmoe {

class BatchAssembler {
 public:
  BatchAssembler(ExampleStream stream, const DataConfig& config);

  // The next `batch_size` rows, or what is left of a stream of one epoch; nothing at its end.
  std::optional<Batch> next();

  // Before the first example that is in no batch yet.
  const ExamplePosition& position() const { return position_; }
  void restore(const ExamplePosition& position);
  const ExampleStream& stream() const { return stream_; }

 private:
  bool fill_row();

  ExampleStream stream_;
  int64_t batch_size_, input_length_, target_length_;
  bool is_packing_;
  PackedRow row_;
  // The example that did not fit in the last row, and the position before it.
  std::optional<Example> waiting_;
  ExamplePosition position_;
};

}  // namespace stmoe
