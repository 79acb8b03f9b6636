// SPDX-License-Identifier: Apache-2.0
// Timing of op cases: the shortest of many runs. Each run is an arena step, so that no page is
// mapped anew.
#include <algorithm>
#include <cstdio>

#include "lib/autograd/tape.h"
#include "lib/base/clock.h"
#include "lib/base/random.h"
#include "lib/tensor/arena.h"
#include "tests/support/op_case.h"

namespace stmoe::test {
namespace {

struct OpTiming {
  double forward_seconds = 1e30, backward_seconds = 1e30;
  double forward_bytes = 0, backward_bytes = 0;
};

Tensor uniform(const Shape& shape, DType dtype, double low, double high, RandomKey key) {
  Tensor values = Tensor::empty(shape, DType::f32);
  auto span = values.span<float>();
  for (size_t i = 0; i < span.size(); ++i)
    span[i] = static_cast<float>(low + (high - low) * random_uniform(key, i));
  return values.to(dtype).clone_to_heap();
}

void run_once(const OpCase& op_case, const std::vector<Tensor>& xs, std::vector<Tensor>& dys,
              DType dtype, OpTiming& timing) {
  OpArguments arguments{{}, dtype};
  for (size_t i = 0; i < xs.size(); ++i)
    arguments.inputs.push_back(op_case.inputs[i].is_differentiable ? Var::leaf(xs[i]) : Var(xs[i]));
  Stopwatch watch;
  OpResults ys = op_case.call(arguments);
  timing.forward_seconds = std::min(timing.forward_seconds, watch.seconds());
  for (size_t i = dys.size(); i < ys.size(); ++i)
    dys.push_back(is_floating(ys[i].dtype())
                      ? uniform(ys[i].shape(), ys[i].dtype(), -1, 1, RandomKey{i})
                      : Tensor());
  timing.forward_bytes = timing.backward_bytes = 0;
  for (const Tensor& x : xs) timing.forward_bytes += static_cast<double>(x.bytes());
  for (const Var& y : ys) timing.forward_bytes += static_cast<double>(y.value().bytes());
  timing.backward_bytes = timing.forward_bytes;
  watch.reset();
  backward(ys, dys);
  timing.backward_seconds = std::min(timing.backward_seconds, watch.seconds());
  for (const Var& x : arguments.inputs)
    timing.backward_bytes += static_cast<double>(x.grad().bytes());
}

void print(const OpCase& op_case, DType dtype, const char* pass, double seconds, double bytes,
           double flops) {
  std::printf("%-44s %-5s %-8s %9.3f ms %8.1f GB/s", op_case.name.c_str(), name_of(dtype).data(),
              pass, seconds * 1e3, bytes / seconds * 1e-9);
  if (flops > 0) std::printf(" %9.1f GFLOP/s", flops / seconds * 1e-9);
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

void time_op(const OpCase& op_case) {
  for (DType dtype : op_case.dtypes) {
    if (dtype == DType::f64) continue;
    std::vector<Tensor> xs, dys;
    for (const OpInput& input : op_case.inputs)
      xs.push_back(uniform(input.shape,
                           input.is_weight && dtype == DType::bf16 ? DType::f32 : dtype, input.low,
                           input.high, RandomKey{xs.size()}));
    OpTiming timing;
    StepArena arena;
    Stopwatch whole;
    for (int run = 0; run < 5 || whole.seconds() < 1.0; ++run) {
      ArenaStep step(arena, "time");
      run_once(op_case, xs, dys, dtype, timing);
      step.finish();
    }
    if (op_case.forward_bytes) timing.forward_bytes = op_case.forward_bytes(dtype);
    if (op_case.backward_bytes) timing.backward_bytes = op_case.backward_bytes(dtype);
    print(op_case, dtype, "forward", timing.forward_seconds, timing.forward_bytes, op_case.flops);
    print(op_case, dtype, "backward", timing.backward_seconds, timing.backward_bytes,
          2 * op_case.flops);
  }
}

}  // namespace stmoe::test
