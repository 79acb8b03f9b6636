// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/linear_cross_entropy.h"

#include <algorithm>
#include <vector>

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"
#include "lib/ops/product.h"

namespace stmoe {
namespace {

constexpr const char* kOp = "linear_cross_entropy";

void check_arguments(const Var& h_ND, const Var& w, const Tensor& targets_N,
                     const LinearCrossEntropyOptions& options) {
  STMOE_CHECK(
      is_floating(h_ND.dtype()) &&
          (w.dtype() == h_ND.dtype() || (h_ND.dtype() == DType::bf16 && w.dtype() == DType::f32)),
      "{}: h is {}, w is {}", kOp, name_of(h_ND.dtype()), name_of(w.dtype()));
  STMOE_CHECK(h_ND.rank() == 2 && w.rank() == 2 && h_ND.dim(1) == w.dim(options.is_transposed),
              "{}: h {} and w {} do not fit", kOp, h_ND.shape().text(), w.shape().text());
  STMOE_CHECK(targets_N.shape() == Shape{h_ND.dim(0)}, "{}: targets are {}, expected [{}]", kOp,
              targets_N.shape().text(), h_ND.dim(0));
  check_loss_options(kOp, targets_N, w.dim(options.is_transposed ? 0 : 1), options.loss);
}

// Rows that are taken, and their targets. rows undefined: all.
struct Counted {
  Tensor row_M, target_M;
  int64_t count = 0;
};

Counted counted_rows(const Tensor& targets_N) {
  Counted counted;
  if (!is_host_memory(layout_device(targets_N.device())))
    return {Tensor(), targets_N, targets_N.numel()};
  counted.row_M = Tensor::empty(targets_N.shape(), DType::i32);
  counted.target_M = Tensor::empty(targets_N.shape(), DType::i32);
  const auto targets = targets_N.span<int32_t>();
  for (size_t n = 0; n < targets.size(); ++n) {
    if (targets[n] == 0) continue;
    counted.row_M.data<int32_t>()[counted.count] = static_cast<int32_t>(n);
    counted.target_M.data<int32_t>()[counted.count++] = targets[n];
  }
  return counted;
}

// One call of the op. Buffers have the size of a full chunk, so that the memory of a step does not
// depend on how many targets count.
class Loss {
 public:
  Loss(const Var& h_ND, const Var& w, const Tensor& targets_N,
       const LinearCrossEntropyOptions& options)
      : options_(options),
        sums_(h_ND.dtype() == DType::f64 ? DType::f64 : DType::f32),
        h_(h_ND.value().contiguous()),
        w_(w.value_as(h_.dtype()).contiguous()),
        vocabulary_(w.dim(options.is_transposed ? 0 : 1)),
        chunk_(options.chunk_rows > 0 ? options.chunk_rows
                                      : loss_chunk_rows(h_.dim(0), vocabulary_, h_.device())),
        counted_(counted_rows(targets_N.contiguous())),
        rows_(empty_loss_rows(h_.dim(0), h_.device())),
        logits_(empty({chunk_, vocabulary_}, sums_)),
        scaled_(empty({chunk_, h_.dim(1)}, h_.dtype())) {}

  void run(bool needs_h, bool needs_w) {
    if (needs_h) dh_ = empty(h_.shape(), h_.dtype());
    if (needs_h && counted_.count < h_.dim(0)) dh_.fill(0);
    if (needs_w) dw_ = empty(w_.shape(), sums_);
    if (needs_w && counted_.count == 0) dw_.fill(0);
    const bool needs_gradient = needs_h || needs_w;
    if (needs_gradient && h_.dtype() == DType::bf16) rounded_ = empty(logits_.shape(), h_.dtype());
    if (needs_h) dscaled_ = empty({chunk_, h_.dim(1)}, sums_);
    for (int64_t begin = 0; begin < counted_.count; begin += chunk_)
      run_chunk(begin, std::min(counted_.count, begin + chunk_));
  }
  CrossEntropy sums() const {
    return add_up(rows_, counted_.target_M.slice(0, 0, counted_.count), empty({1}, sums_));
  }
  const Tensor& dh() const { return dh_; }
  Tensor dw(DType dtype) const { return dw_.defined() ? dw_.to(dtype) : dw_; }

 private:
  Tensor empty(const Shape& shape, DType dtype) const {
    return Tensor::empty(shape, dtype, h_.device());
  }

  void run_chunk(int64_t begin, int64_t end) {
    const auto part = [&](const Tensor& buffer) { return buffer.slice(0, 0, end - begin); };
    const auto& own = kernels<LinearCrossEntropyKernels>(h_.device());
    const auto& loss = kernels<CrossEntropyKernels>(h_.device());
    // All rows: the chunk's part of h and of its gradient.
    const Tensor rows = counted_.row_M.defined() ? counted_.row_M.slice(0, begin, end) : Tensor();
    const auto taken = [&](const Tensor& all) {
      return rows.defined() ? all : all.slice(0, begin, end);
    };
    const Tensor targets = counted_.target_M.slice(0, begin, end);
    const Tensor scaled = part(scaled_), logits = part(logits_);
    const CrossEntropyRows results = slice_rows(rows_, begin, end);
    own.gather(scaled, taken(h_), rows, options_.factor);
    const MatrixView w = matrix_view(w_), w_DV = options_.is_transposed ? w.transposed() : w;
    product(matrix_view(logits), matrix_view(scaled), w_DV);
    if (!dh_.defined() && !dw_.defined())
      return loss.forward(results, logits, targets, options_.loss);

    const Tensor dlogits = rounded_.defined() ? part(rounded_) : logits;
    loss.forward_and_gradient(results, dlogits, logits, targets, options_.expected_gradient,
                              options_.loss);
    if (dh_.defined()) {
      const Tensor dscaled = part(dscaled_);
      product(matrix_view(dscaled), matrix_view(dlogits), w_DV.transposed());
      own.scatter(taken(dh_), dscaled, rows, options_.factor);
    }
    if (!dw_.defined()) return;
    const MatrixView a = matrix_view(scaled), b = matrix_view(dlogits);
    if (options_.is_transposed)
      product(matrix_view(dw_), b.transposed(), a, begin > 0);
    else
      product(matrix_view(dw_), a.transposed(), b, begin > 0);
  }

  const LinearCrossEntropyOptions& options_;
  DType sums_;  // of logits and loss
  Tensor h_, w_;
  int64_t vocabulary_, chunk_;
  Counted counted_;
  CrossEntropyRows rows_;
  Tensor logits_, scaled_, rounded_, dscaled_;  // of one chunk
  Tensor dh_, dw_;
};

// The expected gradient as the total's type holds it.
double rounded_to(DType dtype, double value) {
  return dtype == DType::f64 ? value : static_cast<double>(static_cast<float>(value));
}

}  // namespace

// More rows spare the products passes over w and dw, fewer spare memory. Equal chunks, in multiples
// of the rows of a product's tile. A GPU's products need some 1000 rows to be worth their passes.
int64_t loss_chunk_rows(int64_t tokens, int64_t vocabulary, Device device) {
  const bool is_host = is_host_memory(layout_device(device));
  const int64_t elements = int64_t{1} << (is_host ? 24 : 27), least = is_host ? 256 : 2048;
  const int64_t multiple = is_host ? 16 : 128;
  const int64_t most = std::max(least, elements / std::max<int64_t>(1, vocabulary));
  const int64_t chunks = std::max<int64_t>(1, (tokens + most - 1) / most);
  const int64_t rows = (tokens + chunks - 1) / chunks;
  return std::min(tokens, (rows + multiple - 1) / multiple * multiple);
}

CrossEntropy linear_cross_entropy(const Var& h_ND, const Var& w, const Tensor& targets_N,
                                  const LinearCrossEntropyOptions& given) {
  OpScope scope(kOp, OpScope::Pass::forward);
  check_arguments(h_ND, w, targets_N, given);
  LinearCrossEntropyOptions options = given;
  const DType sums = h_ND.dtype() == DType::f64 ? DType::f64 : DType::f32;
  options.expected_gradient = rounded_to(sums, given.expected_gradient);
  const bool is_recorded = will_record({h_ND, w});
  Loss loss(h_ND, w, targets_N, options);
  loss.run(is_recorded && h_ND.requires_grad(), is_recorded && w.requires_grad());
  CrossEntropy result = loss.sums();
  result.total =
      record(kOp, result.total.value(), {h_ND, w},
             [dh = loss.dh(), dw = loss.dw(w.dtype()),
              expected = options.expected_gradient](const Tensor& dtotal) -> std::vector<Tensor> {
               for (const Tensor& gradient : {dh, dw})
                 if (gradient.defined())
                   kernels<LinearCrossEntropyKernels>(gradient.device())
                       .rescale(gradient, dtotal, expected);
               return {dh, dw};
             });
  return result;
}

}  // namespace stmoe
