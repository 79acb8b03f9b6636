// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/residual_norm.h"

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"

namespace stmoe {
namespace {

constexpr const char* kOp = "residual_norm";

void check_sum(const char* op, const Var& x, const Var& branch, const Dropout& dropout) {
  STMOE_CHECK(x.rank() >= 1 && x.dim(-1) >= 1 && is_floating(x.dtype()), "{}: x is {} {}", op,
              name_of(x.dtype()), x.shape().text());
  STMOE_CHECK(!branch.defined() || (branch.shape() == x.shape() && branch.dtype() == x.dtype()),
              "{}: x is {} {}, the branch {} {}", op, name_of(x.dtype()), x.shape().text(),
              name_of(branch.dtype()), branch.shape().text());
  STMOE_CHECK(dropout.broadcast_dim != x.rank() - 1 || dropout.rate == 0,
              "{}: a mask shared along the last dimension", op);
}

void check_scale(const Var& x, const Var& scale_D) {
  const DType statistics = x.dtype() == DType::f64 ? DType::f64 : DType::f32;
  STMOE_CHECK(scale_D.shape() == Shape{x.dim(-1)} && scale_D.dtype() == statistics,
              "{}: scale is {} {}, expected {} [{}]", kOp, name_of(scale_D.dtype()),
              scale_D.shape().text(), name_of(statistics), x.dim(-1));
}

// Without scale, y and rstd.
ResidualNormForward sum_task(const Var& x, const Var& branch, const DropoutMask& mask) {
  const Shape rows = {x.numel() / x.dim(-1), x.dim(-1)};
  ResidualNormForward task;
  task.x_ND = x.value().contiguous().reshape(rows);
  task.sum_ND = task.x_ND;
  if (branch.defined()) {
    task.branch_ND = branch.value().contiguous().reshape(rows);
    task.sum_ND = Tensor::empty_like(task.x_ND);
  }
  task.mask = mask;
  return task;
}

// The first of the two gradients that nobody else holds is written over.
Tensor reused_buffer(const Tensor& first, const Tensor& second) {
  if (first.defined() && !first.is_shared()) return first;
  if (second.defined() && !second.is_shared()) return second;
  return Tensor::empty_like(first.defined() ? first : second);
}

// What the backward pass keeps.
struct Saved {
  Shape shape;
  Tensor sum_ND, scale_D, rstd_N;
  DropoutMask mask;
  bool has_branch;
};

// Gradients of x, scale and branch.
std::vector<Tensor> gradients(const Saved& saved, const Tensor& from_sum, const Tensor& dy) {
  const Shape rows = saved.sum_ND.shape();
  const Tensor dsum = reused_buffer(dy, from_sum);
  // After `dsum` has taken one, the other may be free.
  Tensor dbranch;
  if (saved.has_branch && saved.mask.is_on())
    dbranch = dsum.raw() == dy.raw() && from_sum.defined() && !from_sum.is_shared()
                  ? from_sum
                  : Tensor::empty_like(dsum);
  ResidualNormBackward task;
  task.dsum_ND = dsum.reshape(rows);
  task.dbranch_ND = dbranch.defined() ? dbranch.reshape(rows) : dbranch;
  task.dscale_D = Tensor::empty_like(saved.scale_D);
  task.from_sum_ND = from_sum.defined() ? from_sum.reshape(rows) : from_sum;
  task.dy_ND = dy.reshape(rows);
  task.sum_ND = saved.sum_ND;
  task.scale_D = saved.scale_D;
  task.rstd_N = saved.rstd_N;
  task.mask = saved.mask;
  kernels<ResidualNormKernels>(dsum.device()).backward(task);
  if (!saved.has_branch) return {dsum, task.dscale_D};
  return {dsum, task.dscale_D, dbranch.defined() ? dbranch : dsum};
}

}  // namespace

ResidualNorm residual_norm(const Var& x, const Var& branch, const Var& scale_D,
                           const Dropout& dropout, double eps) {
  OpScope scope(kOp, OpScope::Pass::forward);
  check_sum(kOp, x, branch, dropout);
  check_scale(x, scale_D);
  ResidualNormForward task = sum_task(x, branch, dropout_mask(kOp, x.shape(), dropout));
  task.scale_D = scale_D.value().contiguous();
  task.y_ND = Tensor::empty_like(task.x_ND);
  task.rstd_N = Tensor::empty({task.x_ND.dim(0)}, task.scale_D.dtype(), x.device());
  task.eps = eps;
  kernels<ResidualNormKernels>(x.device()).forward(task);

  const Saved saved = {x.shape(),   task.sum_ND, task.scale_D,
                       task.rstd_N, task.mask,   branch.defined()};
  std::vector<Var> inputs = {x, scale_D};
  if (branch.defined()) inputs.push_back(branch);
  auto results = record_many(kOp, {task.sum_ND.reshape(x.shape()), task.y_ND.reshape(x.shape())},
                             inputs, [saved](std::span<const Tensor> dys) -> std::vector<Tensor> {
                               if (dys[1].defined()) return gradients(saved, dys[0], dys[1]);
                               const Tensor nothing = Tensor::zeros(
                                   saved.shape, saved.sum_ND.dtype(), dys[0].device());
                               return gradients(saved, dys[0], nothing);
                             });
  return {results[0], results[1]};
}

Var residual_sum(const Var& x, const Var& branch, const Dropout& dropout) {
  constexpr const char* kSum = "residual_sum";
  OpScope scope(kSum, OpScope::Pass::forward);
  STMOE_CHECK(branch.defined(), "{}: there is no branch", kSum);
  check_sum(kSum, x, branch, dropout);
  const ResidualNormForward task = sum_task(x, branch, dropout_mask(kSum, x.shape(), dropout));
  kernels<ResidualNormKernels>(x.device()).forward(task);
  return record(kSum, task.sum_ND.reshape(x.shape()), {x, branch},
                [dropout](const Tensor& dsum) -> std::vector<Tensor> {
                  if (dropout.rate == 0) return {dsum, dsum};
                  const Tensor dbranch = Tensor::empty_like(dsum);
                  kernels<DropoutKernels>(dsum.device()).apply(dbranch, dsum, dropout);
                  return {dsum, dbranch};
                });
}

}  // namespace stmoe
