// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/cross_entropy.h"

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"

namespace stmoe {
namespace {

void check_arguments(const Var& logits_NV, const Tensor& targets_N,
                     const CrossEntropyOptions& options) {
  STMOE_CHECK(
      logits_NV.rank() == 2 && (logits_NV.dtype() == DType::f32 || logits_NV.dtype() == DType::f64),
      "cross_entropy: logits are {} {}, expected f32 or f64 [tokens, vocabulary]",
      name_of(logits_NV.dtype()), logits_NV.shape().text());
  STMOE_CHECK(targets_N.shape() == Shape{logits_NV.dim(0)} && targets_N.dtype() == DType::i32,
              "cross_entropy: targets are {} {}, expected i32 [{}]", name_of(targets_N.dtype()),
              targets_N.shape().text(), logits_NV.dim(0));
  STMOE_CHECK(options.label_smoothing >= 0 && options.label_smoothing < 1 && options.z_loss >= 0,
              "cross_entropy: label smoothing {}, z-loss {}", options.label_smoothing,
              options.z_loss);
}

CrossEntropyRows empty_rows(int64_t count, Device device) {
  auto make = [&](DType dtype) { return Tensor::empty({count}, dtype, device); };
  return {make(DType::f64), make(DType::f64), make(DType::f64), make(DType::f64), make(DType::u8)};
}

// Sums over the rows, in their order; throws when a target is not a row of the vocabulary.
CrossEntropy add_up(const CrossEntropyRows& rows, const Tensor& targets_N, Tensor total) {
  CrossEntropy result;
  const auto targets = targets_N.span<int32_t>();
  const auto loss = rows.loss_N.span<double>(), nats = rows.cross_entropy_N.span<double>();
  const auto is_correct = rows.is_correct_N.span<uint8_t>();
  double sum = 0;
  for (size_t n = 0; n < targets.size(); ++n) {
    sum += loss[n];
    result.cross_entropy += nats[n];
    result.num_targets += targets[n] != 0;
    result.num_correct += is_correct[n];
  }
  total.fill(sum);
  return result;
}

}  // namespace

CrossEntropy cross_entropy(const Var& logits_NV, const Tensor& targets_N,
                           const CrossEntropyOptions& options) {
  OpScope scope("cross_entropy", OpScope::Pass::forward);
  check_arguments(logits_NV, targets_N, options);
  const Tensor logits = logits_NV.value().contiguous(), targets = targets_N.contiguous();
  for (int32_t target : targets.span<int32_t>())
    STMOE_CHECK(target >= 0 && target < logits.dim(1),
                "cross_entropy: target {}, the vocabulary has {} entries", target, logits.dim(1));
  const CrossEntropyRows rows = empty_rows(logits.dim(0), logits.device());
  const Tensor total = Tensor::empty({1}, logits.dtype(), logits.device());
  kernels<CrossEntropyKernels>(logits.device()).forward(rows, logits, targets, options);
  CrossEntropy result = add_up(rows, targets, total);
  result.total =
      record("cross_entropy", total, {logits_NV},
             [logits, targets, rows, options](const Tensor& dtotal) -> std::vector<Tensor> {
               const Tensor dlogits = logits.is_shared() ? Tensor::empty_like(logits) : logits;
               kernels<CrossEntropyKernels>(logits.device())
                   .backward(dlogits, dtotal, logits, targets, rows, options);
               return {dlogits};
             });
  return result;
}

}  // namespace stmoe
