// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/tensor.h"

#include <cstring>

#include "lib/base/threads.h"
#include "lib/tensor/copy.h"
#include "lib/tensor/cpu/convert.h"
#include "lib/tensor/device_memory.h"

namespace stmoe {
namespace {

Shape row_major_strides(const Shape& shape) {
  Shape strides = shape;
  int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

}  // namespace

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  for (int64_t dim : shape.dims())
    STMOE_CHECK(dim >= 0, "tensor: negative dimension in {}", shape.text());
  Tensor result;
  result.shape_ = shape;
  result.strides_ = row_major_strides(shape);
  result.dtype_ = dtype;
  result.buffer_ = allocate(result.bytes(), device);
  return result;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  return full(shape, dtype, 0.0, device);
}

Tensor Tensor::full(const Shape& shape, DType dtype, double value, Device device) {
  Tensor result = empty(shape, dtype, device);
  result.fill(value);
  return result;
}

Tensor Tensor::empty_on_heap(const Shape& shape, DType dtype, Device device) {
  Tensor result;
  result.shape_ = shape;
  result.strides_ = row_major_strides(shape);
  result.dtype_ = dtype;
  result.buffer_ = allocate_on_heap(result.bytes(), device);
  return result;
}

Tensor Tensor::persistent(const Shape& shape, DType dtype, Device device) {
  Tensor result = empty_on_heap(shape, dtype, device);
  result.fill(0.0);
  return result;
}

bool Tensor::is_contiguous() const {
  if (numel() == 0) return true;
  int64_t step = 1;
  for (int i = rank() - 1; i >= 0; --i) {
    if (shape_[i] != 1 && strides_[i] != step) return false;
    step *= shape_[i];
  }
  return true;
}

double Tensor::item() const {
  STMOE_CHECK(numel() == 1, "tensor: item of shape {}", shape_.text());
  const Tensor host = on(Device::cpu);
  double value = 0;
  visit_any(dtype_, [&](auto tag) { value = convert<double>(*host.data<decltype(tag)>()); });
  return value;
}

Tensor Tensor::reshape(const Shape& shape) const {
  STMOE_CHECK(is_contiguous(), "tensor: reshape of a non-contiguous view {}", shape_.text());
  Shape resolved = shape;
  int unknown = -1;
  int64_t known = 1;
  for (int i = 0; i < shape.rank(); ++i) {
    if (shape[i] == -1) {
      STMOE_CHECK(unknown < 0, "tensor: reshape to {}: two unknown dimensions", shape.text());
      unknown = i;
    } else {
      known *= shape[i];
    }
  }
  if (unknown >= 0) resolved[unknown] = known ? numel() / known : 0;
  STMOE_CHECK(resolved.numel() == numel(), "tensor: reshape of {} to {}", shape_.text(),
              shape.text());
  Tensor result = *this;
  result.shape_ = resolved;
  result.strides_ = row_major_strides(resolved);
  return result;
}

Tensor Tensor::transpose(int a, int b) const {
  Tensor result = *this;
  std::swap(result.shape_[a], result.shape_[b]);
  std::swap(result.strides_[a], result.strides_[b]);
  return result;
}

Tensor Tensor::slice(int dim, int64_t begin, int64_t end) const {
  STMOE_CHECK(0 <= begin && begin <= end && end <= shape_[dim],
              "tensor: slice [{}, {}) of dimension {} of {}", begin, end, dim, shape_.text());
  Tensor result = *this;
  result.offset_ += begin * strides_[dim];
  result.shape_[dim] = end - begin;
  return result;
}

Tensor Tensor::contiguous() const { return is_contiguous() ? *this : clone(); }

Tensor Tensor::clone() const {
  Tensor result = empty(shape_, dtype_, device());
  result.copy_from(*this);
  return result;
}

Tensor Tensor::clone_to_heap() const {
  Tensor result = persistent(shape_, dtype_, device());
  result.copy_from(*this);
  return result;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  Tensor result = empty(shape_, dtype, device());
  result.copy_from(*this);
  return result;
}

Tensor Tensor::on(Device target) const {
  if (device() == target || (is_host_memory(device()) && is_host_memory(target))) return *this;
  Tensor result = empty(shape_, dtype_, target);
  result.copy_from(*this);
  return result;
}

// Between devices bytes travel: what is strided or of another type is made on the side of `source`.
void Tensor::copy_between_devices(const Tensor& source) const {
  if (!is_contiguous()) {
    const Tensor here = empty(shape_, dtype_, device());
    here.copy_between_devices(source);
    return copy_from(here);
  }
  const Tensor from = source.to(dtype_).contiguous();
  STMOE_CHECK(is_host_memory(device()) || is_host_memory(source.device()),
              "tensor: copy from {} to {}", name_of(source.device()), name_of(device()));
  if (is_host_memory(device()))
    kernels<DeviceMemoryKernels>(source.device()).to_host(raw(), from.raw(), bytes());
  else
    kernels<DeviceMemoryKernels>(device()).to_device(raw(), from.raw(), bytes());
}

void Tensor::copy_from(const Tensor& source) const {
  STMOE_CHECK(shape_ == source.shape(), "tensor: copy of {} into {}", source.shape().text(),
              shape_.text());
  if (numel() == 0) return;
  const bool is_host = is_host_memory(device());
  if (device() == source.device() || (is_host && is_host_memory(source.device())))
    kernels<CopyKernels>(device()).copy(*this, source);
  else
    copy_between_devices(source);
}

void Tensor::fill(double value) const {
  STMOE_CHECK(is_contiguous());
  if (numel() == 0 || device() == Device::plan || (is_planning() && value == 0.0)) return;
  if (value != 0.0) return kernels<CopyKernels>(device()).fill(*this, value);
  if (!is_host_memory(device())) return kernels<DeviceMemoryKernels>(device()).zero(raw(), bytes());
  parallel_for(static_cast<int64_t>(bytes()), 1 << 18, [&](int64_t begin, int64_t end) {
    std::memset(raw() + begin, 0, static_cast<size_t>(end - begin));
  });
}

}  // namespace stmoe
