// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/readout.h"

#include <utility>

namespace stmoe {

void Readout::add(const Tensor& values, Reader reader) {
  STMOE_CHECK(!collected_.defined(), "readout: added to after it was collected");
  STMOE_CHECK(parts_.empty() || parts_[0].values.device() == values.device(),
              "readout: of {} and of {}", name_of(parts_[0].values.device()),
              name_of(values.device()));
  if (is_host_memory(layout_device(values.device()))) {
    const Tensor numbers = values.to(DType::f64).contiguous();
    return reader(numbers.span<double>());
  }
  parts_.push_back({values, values.numel(), std::move(reader)});
}

void Readout::collect() {
  int64_t count = 0;
  for (const Part& part : parts_) count += part.count;
  if (count == 0 || collected_.defined()) return;
  collected_ = Tensor::empty({count}, DType::f64, parts_[0].values.device());
  int64_t at = 0;
  for (Part& part : parts_) {
    collected_.slice(0, at, at + part.count).reshape(part.values.shape()).copy_from(part.values);
    part.values = Tensor();
    at += part.count;
  }
}

void Readout::read() {
  collect();
  const Tensor host = collected_.defined() ? collected_.on(Device::cpu) : Tensor();
  size_t at = 0;
  for (const Part& part : std::exchange(parts_, {})) {
    const auto count = static_cast<size_t>(part.count);
    part.reader(count > 0 ? std::span<const double>(host.span<double>().subspan(at, count))
                          : std::span<const double>());
    at += count;
  }
  collected_ = Tensor();
}

}  // namespace stmoe
