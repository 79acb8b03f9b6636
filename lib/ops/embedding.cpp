// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/embedding.h"

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"

namespace stmoe {
namespace {

void check_ids(const Tensor& ids, int64_t vocabulary) {
  const auto values = ids.span<int32_t>();
  for (size_t n = 0; n < values.size(); ++n)
    STMOE_CHECK(values[n] >= 0 && values[n] < vocabulary,
                "embedding: id {} at position {}, the table has {} rows", values[n], n, vocabulary);
}

}  // namespace

Var embedding(const Var& table_VD, const Tensor& ids, DType dtype, const Dropout& dropout) {
  OpScope scope("embedding", OpScope::Pass::forward);
  STMOE_CHECK(table_VD.rank() == 2 && is_floating(table_VD.dtype()) && is_floating(dtype),
              "embedding: table is {} {}, result {}", name_of(table_VD.dtype()),
              table_VD.shape().text(), name_of(dtype));
  STMOE_CHECK(ids.dtype() == DType::i32, "embedding: ids are {}", name_of(ids.dtype()));
  const Tensor table = (table_VD.is_plain() ? table_VD.value() : table_VD.value_as(DType::bf16))
                           .contiguous(),
               index = ids.contiguous();
  if (is_host_memory(index.device())) check_ids(index, table.dim(0));
  Shape shape = ids.shape();
  shape.append(table.dim(1));
  const Tensor y = Tensor::empty(shape, dtype, table.device());
  const DropoutMask mask = dropout_mask("embedding", shape, dropout);
  STMOE_CHECK(dropout.broadcast_dim != shape.rank() - 1 || !mask.is_on(),
              "embedding: a mask shared along the last dimension");
  kernels<EmbeddingKernels>(y.device()).forward(y, table, index, mask);
  count_bytes(2.0 * static_cast<double>(y.bytes()));  // of the table, only the rows named
  return record("embedding", y, {table_VD},
                [index, mask, before = table.shape(), kind = table_VD.dtype(),
                 sum = LeafGradient(table_VD)](const Tensor& dy) -> std::vector<Tensor> {
                  const auto& kernel = kernels<EmbeddingKernels>(dy.device());
                  if (sum.is_leaf()) {
                    sum.add([&](const Tensor& dtable, bool accumulate) {
                      kernel.backward(dtable, dy, index, mask, accumulate);
                    });
                    return {Tensor()};
                  }
                  const Tensor dtable = Tensor::empty(before, kind, dy.device());
                  kernel.backward(dtable, dy, index, mask, false);
                  return {dtable};
                });
}

}  // namespace stmoe
