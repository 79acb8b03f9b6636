// SPDX-License-Identifier: Apache-2.0
// An f32 tensor of weights in one of the ways of weight_storage.h.
#pragma once

#include "lib/tensor/tensor.h"

namespace stmoe {

struct WeightTensor {
  WeightStorage storage = WeightStorage::f32;
  Tensor value;  // f32 (f64 in tests) when stored so, else bf16: the high half, or all there is
  Tensor low;    // split: i16

  // On the heap, zeros.
  static WeightTensor persistent(const Shape& shape, WeightStorage storage, Device device);
  static WeightTensor of(const NamedTensor& named) {
    return {named.storage, named.tensor, named.low};
  }
  bool is_plain() const { return storage == WeightStorage::f32; }
  // The type of the values that it stands for.
  DType dtype() const { return is_plain() ? value.dtype() : DType::f32; }
  size_t bytes() const { return value.bytes() + (low.defined() ? low.bytes() : 0); }
  // The values on the host; `value` itself when it is there and plain. Runs nothing on the compute
  // threads: any thread may call it when the weight is on the host.
  Tensor on_host() const;
  // Stores values from the host: for bf16_stochastic rounded to the nearest, so that what was
  // stored comes back as it was.
  void assign(const Tensor& host) const;
  // A stack of `count` parts as [count, rest], and one of them.
  WeightTensor slice_of(int64_t count, int64_t index) const;
};

}  // namespace stmoe
