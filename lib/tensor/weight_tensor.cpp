// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/weight_tensor.h"

#include "lib/base/threads.h"

namespace stmoe {
namespace {

constexpr int64_t kChunk = 1 << 16;

void join(float* __restrict values, const bf16* __restrict high, const int16_t* __restrict low,
          int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    values[i] = std::bit_cast<float>(join_bits({high[i].bits, low[i]}));
}

void widen(float* __restrict values, const bf16* __restrict from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(from[i]);
}

void split(const Tensor& high, const Tensor& low, const Tensor& from) {
  const float* values = from.data<float>();
  bf16* upper = high.data<bf16>();
  int16_t* lower = low.data<int16_t>();
  parallel_for(from.numel(), kChunk, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const SplitBits halves = split_bits(std::bit_cast<uint32_t>(values[i]));
      upper[i].bits = halves.high;
      lower[i] = halves.low;
    }
  });
}

}  // namespace

WeightStorage parse_weight_storage(std::string_view name) {
  if (name == "f32") return WeightStorage::f32;
  if (name == "split") return WeightStorage::split;
  if (name == "bf16_stochastic") return WeightStorage::bf16_stochastic;
  throw UsageError(
      format("storage of weights '{}' is unknown; known: f32, split, bf16_stochastic", name));
}

WeightTensor WeightTensor::persistent(const Shape& shape, WeightStorage storage, Device device) {
  const bool is_plain = storage == WeightStorage::f32;
  return {
      storage, Tensor::persistent(shape, is_plain ? DType::f32 : DType::bf16, device),
      storage == WeightStorage::split ? Tensor::persistent(shape, DType::i16, device) : Tensor()};
}

Tensor WeightTensor::on_host() const {
  if (is_plain()) return value.on(Device::cpu);
  const Tensor result = Tensor::empty_on_heap(value.shape(), DType::f32);
  const Tensor here = value.on(Device::cpu);
  if (low.defined())
    join(result.data<float>(), here.data<bf16>(), low.on(Device::cpu).data<int16_t>(),
         result.numel());
  else
    widen(result.data<float>(), here.data<bf16>(), result.numel());
  return result;
}

void WeightTensor::assign(const Tensor& host) const {
  STMOE_CHECK(host.dtype() == dtype() && host.shape() == value.shape(),
              "weights: {} {} for weights of {} {}", name_of(host.dtype()), host.shape().text(),
              name_of(dtype()), value.shape().text());
  if (!low.defined()) return value.copy_from(host);
  if (is_host_memory(value.device())) return split(value, low, host);
  const WeightTensor here{storage, Tensor::empty_on_heap(value.shape(), DType::bf16),
                          Tensor::empty_on_heap(value.shape(), DType::i16)};
  here.assign(host);
  value.copy_from(here.value);
  low.copy_from(here.low);
}

WeightTensor WeightTensor::slice_of(int64_t count, int64_t index) const {
  const auto part = [=](const Tensor& stack) {
    return stack.defined() ? stack.reshape({count, -1}).slice(0, index, index + 1) : stack;
  };
  return {storage, part(value), part(low)};
}

}  // namespace stmoe
