// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/nonzero.h"

#include <catch2/catch.hpp>

#include "tests/support/close.h"

namespace stmoe::test {

TEST_CASE("a mask is 1 where an id is not 0", "[ops][nonzero]") {
  const Tensor ids = Tensor::from<int32_t>({2, 3}, {0, 7, -1, 2, 0, 0});
  const Tensor mask = nonzero(ids);
  CHECK(mask.shape() == Shape{2, 3});
  const auto values = mask.span<int32_t>();
  CHECK(std::vector<int32_t>(values.begin(), values.end()) ==
        std::vector<int32_t>{0, 1, 1, 1, 0, 0});
  if (has_kernels(kernel_table<NonzeroKernels>, Device::emu))
    require_same_bits(nonzero(ids.on(Device::emu)).on(Device::cpu), mask);
  // Of a view, in the order of its elements.
  const auto first = nonzero(ids.slice(1, 0, 1));
  CHECK(first.shape() == Shape{2, 1});
  CHECK(first.span<int32_t>()[0] == 0);
  CHECK(first.span<int32_t>()[1] == 1);
  CHECK_FALSE(nonzero(Tensor()).defined());
  CHECK(nonzero(Tensor::empty({4}, DType::i32, Device::plan)).device() == Device::plan);
}

}  // namespace stmoe::test
