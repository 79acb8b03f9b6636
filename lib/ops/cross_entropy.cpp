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
  STMOE_CHECK(targets_N.shape() == Shape{logits_NV.dim(0)},
              "cross_entropy: targets are {}, expected [{}]", targets_N.shape().text(),
              logits_NV.dim(0));
  check_loss_options("cross_entropy", targets_N, logits_NV.dim(1), options);
}

}  // namespace

void check_loss_options(const char* op, const Tensor& targets_N, int64_t vocabulary,
                        const CrossEntropyOptions& options) {
  STMOE_CHECK(options.label_smoothing >= 0 && options.label_smoothing < 1 && options.z_loss >= 0,
              "{}: label smoothing {}, z-loss {}", op, options.label_smoothing, options.z_loss);
  STMOE_CHECK(targets_N.dtype() == DType::i32, "{}: targets are {}, expected i32", op,
              name_of(targets_N.dtype()));
  if (!is_host_memory(targets_N.device())) return;
  for (int32_t target : targets_N.contiguous().span<int32_t>())
    STMOE_CHECK(target >= 0 && target < vocabulary, "{}: target {}, the vocabulary has {} entries",
                op, target, vocabulary);
}

CrossEntropyRows empty_loss_rows(int64_t count, Device device) {
  auto make = [&](DType dtype) { return Tensor::empty({count}, dtype, device); };
  return {make(DType::f64), make(DType::f64), make(DType::f64), make(DType::f64), make(DType::u8)};
}

CrossEntropyRows slice_rows(const CrossEntropyRows& rows, int64_t begin, int64_t end) {
  auto part = [=](const Tensor& values) { return values.slice(0, begin, end); };
  return {part(rows.loss_N), part(rows.cross_entropy_N), part(rows.max_N), part(rows.log_z_N),
          part(rows.is_correct_N)};
}

CrossEntropy add_up(const CrossEntropyRows& rows, const Tensor& targets_N, const Tensor& total) {
  CrossEntropy result{Var(total), Tensor::empty({3}, DType::f64, total.device())};
  kernels<CrossEntropyKernels>(total.device()).add_up(total, result.sums, rows, targets_N);
  return result;
}

CrossEntropySums CrossEntropy::read() const {
  const Tensor host = sums.on(Device::cpu);
  return sums_from(host.span<double>());
}

CrossEntropySums sums_from(std::span<const double> values) {
  return {values[0], static_cast<int64_t>(values[1]), static_cast<int64_t>(values[2])};
}

CrossEntropy cross_entropy(const Var& logits_NV, const Tensor& targets_N,
                           const CrossEntropyOptions& options) {
  OpScope scope("cross_entropy", OpScope::Pass::forward);
  check_arguments(logits_NV, targets_N, options);
  const Tensor logits = logits_NV.value().contiguous(), targets = targets_N.contiguous();
  const CrossEntropyRows rows = empty_loss_rows(logits.dim(0), logits.device());
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
