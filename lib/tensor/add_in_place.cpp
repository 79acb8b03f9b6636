// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/add_in_place.h"

namespace stmoe {
void add_in_place(const Tensor& into, const Tensor& term) {
  STMOE_CHECK(into.shape() == term.shape() && into.dtype() == term.dtype(),
              "add_in_place: {} {} and {} {}", name_of(into.dtype()), into.shape().text(),
              name_of(term.dtype()), term.shape().text());
  STMOE_CHECK(into.is_contiguous() && term.is_contiguous(), "add_in_place: strided operands");
  kernels<AddInPlaceKernels>(into.device()).add(into, term);
}

}  // namespace stmoe
