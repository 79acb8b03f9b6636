// SPDX-License-Identifier: Apache-2.0
// A typed, strided view of a Buffer. Copying a Tensor copies the view, not the data. Row-major
// unless made by transpose or slice. Shapes in errors are printed as [rows, columns].
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "lib/tensor/buffer.h"
#include "lib/tensor/device.h"
#include "lib/tensor/dtype.h"
#include "lib/tensor/shape.h"
#include "lib/tensor/weight_storage.h"

namespace stmoe {

class Tensor {
 public:
  Tensor() = default;

  // Uninitialised; from the current step arena if a step is open.
  static Tensor empty(const Shape& shape, DType dtype, Device device = Device::cpu);
  static Tensor empty_like(const Tensor& other) {
    return empty(other.shape(), other.dtype(), other.device());
  }
  static Tensor zeros(const Shape& shape, DType dtype, Device device = Device::cpu);
  static Tensor full(const Shape& shape, DType dtype, double value, Device device = Device::cpu);
  // On the heap, zeroed: for weights, optimizer state and whatever outlives a step.
  static Tensor persistent(const Shape& shape, DType dtype, Device device = Device::cpu);
  // On the heap, uninitialised; runs nothing on the compute threads, so any thread may call it.
  static Tensor empty_on_heap(const Shape& shape, DType dtype, Device device = Device::cpu);
  template <class T>
  static Tensor from(const Shape& shape, const std::vector<T>& values) {
    Tensor result = empty(shape, kDTypeOf<T>);
    STMOE_CHECK(static_cast<int64_t>(values.size()) == shape.numel(),
                "tensor: {} values for shape {}", values.size(), shape.text());
    std::copy(values.begin(), values.end(), result.data<T>());
    return result;
  }

  bool defined() const { return buffer_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  int64_t dim(int i) const { return shape_[i]; }
  int64_t stride(int i) const { return strides_[i]; }
  const Shape& strides() const { return strides_; }
  int64_t numel() const { return shape_.numel(); }
  DType dtype() const { return dtype_; }
  Device device() const { return buffer_ ? buffer_->device() : Device::cpu; }
  size_t bytes() const { return static_cast<size_t>(numel()) * size_of(dtype_); }
  bool is_contiguous() const;
  // Whether another tensor views the same buffer.
  bool is_shared() const { return buffer_.use_count() > 1; }
  // Identity of the memory, for the profile; empty when undefined.
  std::weak_ptr<const Buffer> buffer() const { return buffer_; }

  // First element of the view; throws BugError when T is not the element type.
  template <class T>
  T* data() const {
    STMOE_CHECK(kDTypeOf<T> == dtype_, "tensor: {} data read as {}", name_of(dtype_),
                name_of(kDTypeOf<T>));
    return reinterpret_cast<T*>(raw());
  }
  std::byte* raw() const {
    return buffer_ ? buffer_->data() + offset_ * static_cast<int64_t>(size_of(dtype_)) : nullptr;
  }
  // Elements in order; contiguous tensors only.
  template <class T>
  std::span<T> span() const {
    STMOE_CHECK(is_contiguous(), "tensor: span of a non-contiguous view {}", shape_.text());
    return {data<T>(), static_cast<size_t>(numel())};
  }
  // The only element, converted to f64. Waits for the device.
  double item() const;

  // Views. reshape needs a contiguous tensor; one dimension may be -1.
  Tensor reshape(const Shape& shape) const;
  Tensor transpose(int a, int b) const;
  Tensor slice(int dim, int64_t begin, int64_t end) const;

  // Copies, by the device's kernels. Between devices copy_from to a host waits for the device.
  Tensor contiguous() const;  // this itself when contiguous already
  Tensor clone() const;
  Tensor clone_to_heap() const;
  Tensor to(DType dtype) const;    // this itself when the type is the same; rounds to nearest even
  Tensor on(Device device) const;  // this itself when that device reads its memory
  void copy_from(const Tensor& source) const;  // same shape; converts the element type
  void fill(double value) const;

 private:
  void copy_between_devices(const Tensor& source) const;

  std::shared_ptr<Buffer> buffer_;
  int64_t offset_ = 0;  // in elements
  Shape shape_, strides_;
  DType dtype_ = DType::f32;
};

// A tensor with its checkpoint path; of a weight that is not stored as f32 also how, and what else
// belongs to it (weight_tensor.h).
struct NamedTensor {
  std::string name;
  Tensor tensor;
  WeightStorage storage = WeightStorage::f32;
  Tensor low = {};
};

}  // namespace stmoe
