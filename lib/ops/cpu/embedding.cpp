// SPDX-License-Identifier: Apache-2.0
// The gradient: positions are sorted by id (counting sort, stable), then each row of the table is
// written once, by one thread, as the sum of its positions in their order.
#include "lib/ops/embedding.h"

#include <algorithm>

#include "lib/base/threads.h"

namespace stmoe {
namespace {

template <class Y, class T>
void gather_rows(Y* y, const T* table, const int32_t* ids, int64_t tokens, int64_t width) {
  parallel_for(tokens, std::max<int64_t>(1, (1 << 14) / width), [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const T* row = table + ids[n] * width;
      Y* out = y + n * width;
      for (int64_t d = 0; d < width; ++d)
        out[d] = static_cast<Y>(static_cast<Compute<Y>>(static_cast<Compute<T>>(row[d])));
    }
  });
}

void forward_cpu(const Tensor& y, const Tensor& table, const Tensor& ids) {
  if (y.numel() == 0) return;
  visit_floating(table.dtype(), [&](auto table_tag) {
    visit_floating(y.dtype(), [&](auto y_tag) {
      gather_rows(y.data<decltype(y_tag)>(), table.data<decltype(table_tag)>(), ids.data<int32_t>(),
                  ids.numel(), table.dim(1));
    });
  });
}

// Positions ordered by id; those of id v are order[start[v]] ... order[start[v + 1] - 1].
struct Occurrences {
  std::vector<int64_t> start, order;
};

Occurrences sort_by_id(const Tensor& ids, int64_t vocabulary) {
  const auto values = ids.span<int32_t>();
  Occurrences sorted;
  sorted.start.assign(static_cast<size_t>(vocabulary) + 1, 0);
  for (int32_t id : values) ++sorted.start[static_cast<size_t>(id) + 1];
  for (size_t v = 1; v < sorted.start.size(); ++v) sorted.start[v] += sorted.start[v - 1];
  std::vector<int64_t> next(sorted.start.begin(), sorted.start.end() - 1);
  sorted.order.resize(values.size());
  for (size_t n = 0; n < values.size(); ++n)
    sorted.order[static_cast<size_t>(next[static_cast<size_t>(values[n])]++)] =
        static_cast<int64_t>(n);
  return sorted;
}

template <class T, class Y>
void sum_rows(T* dtable, const Y* dy, const Occurrences& sorted, int64_t vocabulary,
              int64_t width) {
  parallel_for(vocabulary, 64, [&](int64_t begin, int64_t end) {
    std::vector<Compute<T>> total(static_cast<size_t>(width));
    for (int64_t v = begin; v < end; ++v) {
      T* out = dtable + v * width;
      const int64_t first = sorted.start[static_cast<size_t>(v)];
      const int64_t last = sorted.start[static_cast<size_t>(v) + 1];
      if (first == last) {
        std::fill_n(out, width, T(0));
        continue;
      }
      std::fill(total.begin(), total.end(), Compute<T>(0));
      Compute<T>* sum = total.data();
      for (int64_t i = first; i < last; ++i) {
        const Y* row = dy + sorted.order[static_cast<size_t>(i)] * width;
        for (int64_t d = 0; d < width; ++d)
          sum[d] += static_cast<Compute<T>>(static_cast<Compute<Y>>(row[d]));
      }
      for (int64_t d = 0; d < width; ++d) out[d] = static_cast<T>(sum[d]);
    }
  });
}

void backward_cpu(const Tensor& dtable, const Tensor& dy, const Tensor& ids) {
  const Occurrences sorted = sort_by_id(ids, dtable.dim(0));
  visit_floating(dtable.dtype(), [&](auto table_tag) {
    visit_floating(dy.dtype(), [&](auto y_tag) {
      sum_rows(dtable.data<decltype(table_tag)>(), dy.data<decltype(y_tag)>(), sorted,
               dtable.dim(0), dtable.dim(1));
    });
  });
}

STMOE_REGISTER_KERNELS(EmbeddingKernels, cpu, {forward_cpu, backward_cpu})

}  // namespace

}  // namespace stmoe
