// SPDX-License-Identifier: Apache-2.0
#include "lib/nn/parameters.h"

namespace stmoe {

Var ParameterStore::create(const std::string& name, const Shape& shape,
                           const Initializer& initializer, int stacked_dims, WeightUse use) {
  STMOE_CHECK(names_.insert(name).second, "parameters: {} is made twice", name);
  STMOE_CHECK(stacked_dims >= 0 && stacked_dims < shape.rank(),
              "parameters: {} of shape {} stacks {} dimensions", name, shape.text(), stacked_dims);
  shapes_.push_back({name, shape, stacked_dims});
  if (mode_ == Mode::shapes_only) return Var();
  parameters_.push_back({name, make(name, shape, initializer, use), stacked_dims});
  return parameters_.back().value;
}

Var ParameterStore::make(const std::string& name, const Shape& shape,
                         const Initializer& initializer, WeightUse use) const {
  const RandomKey key = key_.fold(name);
  if (storage_ == WeightStorage::f32 || use == WeightUse::any) {
    Tensor value = Tensor::persistent(shape, dtype_, device_);
    if (mode_ == Mode::initialized) initialize(value, initializer, key);
    return Var::leaf(std::move(value));
  }
  const WeightTensor weight = WeightTensor::persistent(shape, storage_, device_);
  if (mode_ == Mode::initialized) {
    const Tensor values = Tensor::empty_on_heap(shape, DType::f32);
    initialize(values, initializer, key);
    weight.assign(values);
  }
  return Var::leaf(weight, key.fold("rounding"));
}

ParameterScope ParameterScope::operator/(std::string_view name) const {
  return ParameterScope(*store_, path_.empty() ? std::string(name) : format("{}/{}", path_, name));
}

Var ParameterScope::create(std::string_view name, const Shape& shape,
                           const Initializer& initializer, int stacked_dims, WeightUse use) const {
  return store_->create((*this / name).path_, shape, initializer, stacked_dims, use);
}

}  // namespace stmoe
