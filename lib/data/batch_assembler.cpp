// SPDX-License-Identifier: Apache-2.0
#include "lib/data/batch_assembler.h"

#include <algorithm>

namespace stmoe {
namespace {

std::span<int32_t> row_of(const Tensor& tensor, int64_t row) {
  const auto length = static_cast<size_t>(tensor.dim(1));
  return tensor.span<int32_t>().subspan(static_cast<size_t>(row) * length, length);
}

int64_t count_tokens(const Tensor& tensor) {
  const auto tokens = tensor.span<int32_t>();
  return std::ssize(tokens) - std::count(tokens.begin(), tokens.end(), kPadId);
}

}  // namespace

BatchAssembler::BatchAssembler(ExampleStream stream, const DataConfig& config)
    : stream_(std::move(stream)),
      batch_size_(config.batch_size),
      input_length_(config.input_length),
      target_length_(config.resolved_target_length()),
      is_packing_(config.packing),
      row_(input_length_, target_length_),
      position_(stream_.position()) {}

void BatchAssembler::restore(const ExamplePosition& position) {
  stream_.restore(position);
  waiting_.reset();
  position_ = position;
}

std::optional<Batch> BatchAssembler::next() {
  Batch batch;
  for (Tensor* inputs : {&batch.encoder_tokens_BL, &batch.encoder_segments_BL})
    *inputs = Tensor::empty_on_heap({batch_size_, input_length_}, DType::i32);
  for (Tensor* targets : {&batch.decoder_inputs_BT, &batch.targets_BT, &batch.decoder_segments_BT})
    *targets = Tensor::empty_on_heap({batch_size_, target_length_}, DType::i32);
  int64_t rows = 0;
  while (rows < batch_size_ && fill_row()) {
    row_.take({row_of(batch.encoder_tokens_BL, rows), row_of(batch.encoder_segments_BL, rows),
               row_of(batch.decoder_inputs_BT, rows), row_of(batch.targets_BT, rows),
               row_of(batch.decoder_segments_BT, rows)});
    ++rows;
  }
  if (rows == 0) return std::nullopt;
  if (rows < batch_size_)
    for (Tensor* tensor : {&batch.encoder_tokens_BL, &batch.encoder_segments_BL,
                           &batch.decoder_inputs_BT, &batch.targets_BT, &batch.decoder_segments_BT})
      *tensor = tensor->slice(0, 0, rows);
  batch.num_input_tokens = count_tokens(batch.encoder_tokens_BL);
  batch.num_target_tokens = count_tokens(batch.targets_BT);
  return batch;
}

bool BatchAssembler::fill_row() {
  for (;;) {
    if (!waiting_) {
      position_ = stream_.position();
      Example example;
      if (!stream_.next(example)) return !row_.empty();
      waiting_ = std::move(example);
    }
    const bool is_added = (is_packing_ || row_.empty()) && row_.append(*waiting_);
    if (!is_added) return true;
    waiting_.reset();
    if (!is_packing_) {
      position_ = stream_.position();
      return true;
    }
  }
}

}  // namespace stmoe
