// SPDX-License-Identifier: Apache-2.0
// Copies within a device against the CPU's, to the bit.
#include <catch2/catch.hpp>

#include "lib/base/random.h"
#include "tests/support/close.h"

namespace stmoe {
namespace {

Tensor draw(const Shape& shape, DType dtype) {
  const Tensor values = Tensor::empty(shape, DType::f64);
  for (size_t i = 0; i < values.span<double>().size(); ++i)
    values.span<double>()[i] = 200.0 * static_cast<double>(random_uniform(RandomKey{5}, i));
  return values.to(dtype);
}

// The part of a tensor that copies are made of, and a permutation of its dimensions.
struct View {
  Shape whole;
  int64_t begin, end;  // of the last dimension
  bool is_permuted;
  Tensor of(const Tensor& tensor) const {
    const Tensor part = tensor.slice(tensor.rank() - 1, begin, end);
    return is_permuted ? part.transpose(0, 1) : part;
  }
};

TEST_CASE("copies of any types and strides are the CPU's", "[emu][copy]") {
  const View views[] = {{{3, 5, 48}, 0, 48, false}, {{3, 5, 48}, 16, 32, false},
                        {{3, 5, 48}, 16, 48, true}, {{3, 5, 40}, 3, 19, true},
                        {{7, 9}, 0, 9, false},      {{2000, 8}, 0, 8, true},
                        {{4, 6}, 2, 5, false},      {{3, 0}, 0, 0, false}};
  const DType types[] = {DType::f64, DType::f32, DType::bf16, DType::i64, DType::i32, DType::u8};
  for (const View& view : views)
    for (DType from : types)
      for (DType to : types) {
        INFO(view.whole.text() << " " << name_of(from) << " to " << name_of(to));
        const Tensor whole = draw(view.whole, from), there = whole.on(Device::emu);
        const Tensor plain = view.of(whole).contiguous().to(to);
        test::require_same_bits(view.of(there).contiguous().to(to).on(Device::cpu), plain);
        // Into a view.
        const Tensor target = Tensor::zeros(view.whole, to), target_there = target.on(Device::emu);
        view.of(target).copy_from(view.of(whole));
        view.of(target_there).copy_from(view.of(there));
        test::require_same_bits(target_there.on(Device::cpu), target);
      }
}

TEST_CASE("fills are the CPU's", "[emu][copy]") {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16, DType::i64, DType::i32, DType::u8})
    for (int64_t count : {0, 1, 7, 4096, 5000})
      test::require_same_bits(Tensor::full({count}, dtype, 3.7, Device::emu).on(Device::cpu),
                              Tensor::full({count}, dtype, 3.7));
}

}  // namespace
}  // namespace stmoe
