// SPDX-License-Identifier: Apache-2.0
// Every draw is a function of the case's name, so a failure repeats.
#include "tests/support/op_case.h"

#include <cmath>

#include <catch2/catch.hpp>

#include "lib/autograd/tape.h"
#include "lib/base/random.h"
#include "lib/base/threads.h"
#include "lib/tensor/device_info.h"
#include "tests/support/guarded_heap.h"

namespace stmoe::test {
namespace {

enum class Layout { plain, transposed, sliced };

DType dtype_of(const OpInput& input, DType dtype) {
  return input.is_weight && dtype == DType::bf16 ? DType::f32 : dtype;
}

Tensor draw(const Shape& shape, double low, double high, double away_from_zero, RandomKey key) {
  Tensor result = Tensor::empty(shape, DType::f64);
  auto values = result.span<double>();
  for (size_t i = 0; i < values.size(); ++i) {
    double value = low + (high - low) * random_uniform(key, i);
    if (std::abs(value) < away_from_zero) value = std::copysign(away_from_zero, value);
    values[i] = value;
  }
  return result;
}

std::vector<Tensor> draw_inputs(const OpCase& op_case, DType dtype) {
  std::vector<Tensor> inputs;
  for (const OpInput& input : op_case.inputs) {
    const RandomKey key = RandomKey{}.fold(op_case.name).fold(inputs.size());
    inputs.push_back(draw(input.shape, input.low, input.high, input.away_from_zero, key)
                         .to(dtype_of(input, dtype)));
  }
  return inputs;
}

std::vector<Tensor> draw_gradients(const OpCase& op_case, const std::vector<Tensor>& ys) {
  std::vector<Tensor> dys;
  for (const Tensor& y : ys) {
    const RandomKey key = RandomKey{}.fold(op_case.name).fold("gradient").fold(dys.size());
    dys.push_back(is_floating(y.dtype()) ? draw(y.shape(), -1, 1, 0.01, key).to(y.dtype())
                                         : Tensor());
  }
  return dys;
}

Tensor with_layout(const Tensor& x, Layout layout) {
  if (layout == Layout::plain || x.rank() == 0 || (layout == Layout::transposed && x.rank() < 2))
    return x;
  Shape shape = x.shape();
  Tensor view;
  if (layout == Layout::transposed) {
    std::swap(shape[-1], shape[-2]);
    view = Tensor::empty(shape, x.dtype()).transpose(x.rank() - 2, x.rank() - 1);
  } else {
    shape[-1] += 3;
    view = Tensor::empty(shape, x.dtype()).slice(x.rank() - 1, 1, 1 + x.dim(-1));
  }
  view.copy_from(x);
  return view;
}

std::vector<Tensor> forward(const OpCase& op_case, const std::vector<Tensor>& xs, DType dtype) {
  NoGradScope no_grad;
  OpArguments arguments{{}, dtype};
  for (const Tensor& x : xs) arguments.inputs.emplace_back(x);
  std::vector<Tensor> ys;
  for (const Var& y : op_case.call(arguments)) ys.push_back(y.value());
  return ys;
}

struct Recorded {
  std::vector<Tensor> ys, dxs;
};

Recorded forward_and_backward(const OpCase& op_case, const std::vector<Tensor>& xs,
                              const std::vector<Tensor>& dys, DType dtype,
                              Device device = Device::cpu) {
  OpArguments arguments{{}, dtype, device};
  for (size_t i = 0; i < xs.size(); ++i)
    arguments.inputs.push_back(op_case.inputs[i].is_differentiable ? Var::leaf(xs[i]) : Var(xs[i]));
  const OpResults results = op_case.call(arguments);
  Recorded recorded;
  for (const Var& y : results) recorded.ys.push_back(y.value());
  backward(results, dys);
  for (const Var& x : arguments.inputs) recorded.dxs.push_back(x.grad());
  return recorded;
}

bool any_differentiable(const OpCase& op_case) {
  for (const OpInput& input : op_case.inputs)
    if (input.is_differentiable) return true;
  return false;
}

std::vector<Tensor> to_f64(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> result;
  for (const Tensor& t : tensors) result.push_back(t.defined() ? t.to(DType::f64) : t);
  return result;
}

// sum_i <dy_i, y_i>
double functional(const OpCase& op_case, const std::vector<Tensor>& xs,
                  const std::vector<Tensor>& dys) {
  const std::vector<Tensor> ys = forward(op_case, xs, DType::f64);
  double sum = 0;
  for (size_t i = 0; i < ys.size(); ++i) {
    if (!dys[i].defined()) continue;
    const auto y = values_of(ys[i]), dy = values_of(dys[i]);
    for (size_t k = 0; k < y.size(); ++k) sum += y[k] * dy[k];
  }
  return sum;
}

// The derivative of the functional along `direction` of input `input`.
double central_difference(const OpCase& op_case, std::vector<Tensor> xs,
                          const std::vector<Tensor>& dys, size_t input,
                          const std::vector<double>& direction) {
  constexpr double kStep = 1e-5;
  const Tensor x = xs[input];
  double ends[2];
  for (int side = 0; side < 2; ++side) {
    xs[input] = x.clone();
    auto values = xs[input].span<double>();
    for (size_t k = 0; k < values.size(); ++k) values[k] += (side ? -kStep : kStep) * direction[k];
    ends[side] = functional(op_case, xs, dys);
  }
  return (ends[0] - ends[1]) / (2 * kStep);
}

std::vector<std::vector<double>> directions(size_t count, RandomKey key) {
  constexpr size_t kMostElements = 256;
  std::vector<std::vector<double>> result;
  if (count <= kMostElements) {
    for (size_t k = 0; k < count; ++k) result.emplace_back(count, 0.0)[k] = 1;
    return result;
  }
  for (uint64_t n = 0; n < 4; ++n) {
    auto& direction = result.emplace_back(count);
    for (size_t k = 0; k < count; ++k) direction[k] = random_bits(key.fold(n), k) % 2 ? 1 : -1;
  }
  return result;
}

void check_gradient(const OpCase& op_case, const std::vector<Tensor>& xs,
                    const std::vector<Tensor>& dys, const std::vector<Tensor>& dxs) {
  // Rounding costs about 1e-16 |y| / step = 1e-11 |y|, the third derivative 1e-10.
  const Tolerance tolerance{1e-7, 1e-6};
  for (size_t i = 0; i < xs.size(); ++i) {
    if (!op_case.inputs[i].is_differentiable) continue;
    INFO("gradient of input " << i << " against central differences");
    REQUIRE(dxs[i].defined());
    const auto dx = values_of(dxs[i]);
    std::vector<double> analytic, numeric;
    for (const auto& direction : directions(dx.size(), RandomKey{}.fold(op_case.name).fold(i))) {
      numeric.push_back(central_difference(op_case, xs, dys, i, direction));
      double along = 0;
      for (size_t k = 0; k < dx.size(); ++k) along += dx[k] * direction[k];
      analytic.push_back(along);
    }
    const bool each = analytic.size() == dx.size();
    require_close(Tensor::from(each ? xs[i].shape() : Shape{4}, analytic), numeric, tolerance);
  }
}

void require_close_all(const std::vector<Tensor>& actual, const std::vector<Tensor>& expected,
                       Tolerance tolerance) {
  REQUIRE(actual.size() == expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    INFO("tensor " << i);
    REQUIRE(actual[i].defined() == expected[i].defined());
    if (actual[i].defined()) require_close(actual[i], expected[i], tolerance);
  }
}

void check_reference(const OpCase& op_case, const std::vector<Tensor>& xs,
                     const std::vector<Tensor>& ys, DType dtype) {
  OpValues values;
  for (const Tensor& x : xs) values.push_back(values_of(x));
  const OpValues expected = op_case.reference(values);
  REQUIRE(ys.size() == expected.size());
  for (size_t i = 0; i < ys.size(); ++i) {
    INFO("result " << i << " against the reference");
    require_close(ys[i], expected[i], op_case.tolerance.of(dtype));
  }
}

// The kernels of every lower CPU level give nearly what those of this one gave.
void check_levels(const OpCase& op_case, const std::vector<Tensor>& xs,
                  const std::vector<Tensor>& dys, const Recorded& plain, DType dtype) {
  for (int level = 0; level < static_cast<int>(cpu_level()); ++level) {
    INFO("at CPU level " << name_of(static_cast<CpuLevel>(level)));
    CpuLevelScope scope(static_cast<CpuLevel>(level));
    const Recorded lower = forward_and_backward(op_case, xs, dys, dtype);
    require_close_all(lower.ys, plain.ys, op_case.tolerance.of(dtype));
    require_close_all(lower.dxs, plain.dxs, op_case.gradient_tolerance.of(dtype));
  }
}

std::vector<Tensor> all_on(Device device, const std::vector<Tensor>& tensors) {
  std::vector<Tensor> result;
  for (const Tensor& t : tensors) result.push_back(t.defined() ? t.on(device) : t);
  return result;
}

// The kernels of a device give nearly what the CPU's gave, and again the same bits.
void check_device(const OpCase& op_case, Device device, const std::vector<Tensor>& xs,
                  const std::vector<Tensor>& dys, const Recorded& plain, DType dtype) {
  INFO("on device " << name_of(device));
  const std::vector<Tensor> there = all_on(device, xs), gradients = all_on(device, dys);
  const auto run = [&]() -> Recorded {
    const Recorded r = forward_and_backward(op_case, there, gradients, dtype, device);
    return {all_on(Device::cpu, r.ys), all_on(Device::cpu, r.dxs)};
  };
  const Recorded first = run(), second = run();
  require_close_all(first.ys, plain.ys, op_case.tolerance.of(dtype));
  require_close_all(first.dxs, plain.dxs, op_case.gradient_tolerance.of(dtype));
  for (size_t i = 0; i < first.ys.size(); ++i) require_same_bits(second.ys[i], first.ys[i]);
  for (size_t i = 0; i < first.dxs.size(); ++i)
    if (first.dxs[i].defined()) require_same_bits(second.dxs[i], first.dxs[i]);
}

void check_devices(const OpCase& op_case, const std::vector<Tensor>& xs,
                   const std::vector<Tensor>& dys, const Recorded& plain, DType dtype) {
  if (dtype == DType::f64) return;
  const char* only = std::getenv("STMOE_TEST_DEVICE");  // a device's name
  for (Device device : {Device::emu, Device::cuda}) {
    if (only && name_of(device) != only) continue;
    if (is_usable(device))
      check_device(op_case, device, xs, dys, plain, dtype);
    else if (only)
      FAIL("STMOE_TEST_DEVICE: " << only << ": " << device_problem(device));
  }
}

// Every layout and thread count gives what the plain run gave.
void check_variants(const OpCase& op_case, const std::vector<Tensor>& xs,
                    const std::vector<Tensor>& dys, const Recorded& plain, DType dtype) {
  for (Layout layout : {Layout::transposed, Layout::sliced}) {
    if (!op_case.admits_views) break;
    INFO((layout == Layout::sliced ? "sliced inputs" : "transposed inputs"));
    std::vector<Tensor> views;
    for (const Tensor& x : xs) views.push_back(with_layout(x, layout));
    const Recorded strided = forward_and_backward(op_case, views, dys, dtype);
    require_close_all(strided.ys, plain.ys, op_case.tolerance.of(dtype));
    require_close_all(strided.dxs, plain.dxs, op_case.gradient_tolerance.of(dtype));
  }
  if (!op_case.is_thread_invariant) return;
  const int before = num_threads();
  for (int threads : {1, 3}) {
    INFO(threads << " threads");
    set_num_threads(threads);
    const Recorded again = forward_and_backward(op_case, xs, dys, dtype);
    set_num_threads(before);
    for (size_t i = 0; i < plain.ys.size(); ++i) require_same_bits(again.ys[i], plain.ys[i]);
    for (size_t i = 0; i < plain.dxs.size(); ++i)
      if (plain.dxs[i].defined()) require_same_bits(again.dxs[i], plain.dxs[i]);
  }
}

void check_dtype(const OpCase& op_case, DType dtype) {
  INFO("op case '" << op_case.name << "' in " << name_of(dtype));
  const std::vector<Tensor> xs = draw_inputs(op_case, dtype);
  const std::vector<Tensor> ys = forward(op_case, xs, dtype);
  check_reference(op_case, xs, ys, dtype);
  const std::vector<Tensor> dys = draw_gradients(op_case, ys);
  const Recorded plain = forward_and_backward(op_case, xs, dys, dtype);
  for (size_t i = 0; i < ys.size(); ++i) require_same_bits(plain.ys[i], ys[i]);
  if (any_differentiable(op_case)) {
    const auto xs_f64 = to_f64(xs), dys_f64 = to_f64(dys);
    const Recorded exact = forward_and_backward(op_case, xs_f64, dys_f64, DType::f64);
    for (size_t i = 0; i < xs.size(); ++i)
      if (plain.dxs[i].defined()) REQUIRE(plain.dxs[i].dtype() == xs[i].dtype());
    if (dtype == DType::f64) {
      check_gradient(op_case, xs, dys, plain.dxs);
    } else {
      INFO("gradients against those in f64");
      require_close_all(plain.dxs, exact.dxs, op_case.gradient_tolerance.of(dtype));
    }
  }
  check_levels(op_case, xs, dys, plain, dtype);
  check_devices(op_case, xs, dys, plain, dtype);
  check_variants(op_case, xs, dys, plain, dtype);
}

}  // namespace

void check_op(const OpCase& op_case) {
  GuardedHeap heap;
  for (DType dtype : op_case.dtypes) check_dtype(op_case, dtype);
  INFO("op case '" << op_case.name << "'");
  heap.require_intact();
}

void check_ops(const std::vector<OpCase>& cases) {
  for (const OpCase& op_case : cases) check_op(op_case);
}

}  // namespace stmoe::test
