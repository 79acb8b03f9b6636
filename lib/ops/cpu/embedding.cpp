// SPDX-License-Identifier: Apache-2.0
// The gradient: positions are sorted by id (counting sort, stable), then each row of the table is
// written once, by one thread, as the sum of its positions in their order.
#include "lib/ops/embedding.h"

#include <algorithm>

#include "lib/base/threads.h"
#include "lib/ops/cpu/mask_rows.h"

namespace stmoe {
namespace {

template <class Y, class T>
void gather_row(Y* y, const T* row, const uint32_t* words, uint32_t threshold, Compute<Y> factor,
                int64_t width) {
  using C = Compute<Y>;
  if (!words) {
    for (int64_t d = 0; d < width; ++d)
      y[d] = static_cast<Y>(static_cast<C>(static_cast<Compute<T>>(row[d])));
    return;
  }
  for (int64_t d = 0; d < width; ++d) {
    const C kept = factor * static_cast<C>(static_cast<Compute<T>>(row[d]));
    y[d] = static_cast<Y>((words[d] >> 8) >= threshold ? kept : C(0));
  }
}

// sum += dropout(dy)
template <class C, class Y>
void add_row(C* sum, const Y* dy, const uint32_t* words, uint32_t threshold, C factor,
             int64_t width) {
  if (!words) {
    for (int64_t d = 0; d < width; ++d) sum[d] += static_cast<C>(static_cast<Compute<Y>>(dy[d]));
    return;
  }
  for (int64_t d = 0; d < width; ++d) {
    const C kept = factor * static_cast<C>(static_cast<Compute<Y>>(dy[d]));
    sum[d] += (words[d] >> 8) >= threshold ? kept : C(0);
  }
}

template <class Y, class T>
void gather_rows(Y* y, const T* table, const int32_t* ids, int64_t tokens, int64_t width,
                 const DropoutMask& dropout) {
  parallel_for(tokens, std::max<int64_t>(1, (1 << 14) / width), [&](int64_t begin, int64_t end) {
    Scratch scratch;
    MaskRows mask(dropout, width, width, scratch);
    for (int64_t n = begin; n < end; ++n)
      gather_row(y + n * width, table + ids[n] * width, mask.words_of(n), dropout.threshold,
                 static_cast<Compute<Y>>(dropout.factor), width);
  });
}

void forward_cpu(const Tensor& y, const Tensor& table, const Tensor& ids, const DropoutMask& mask) {
  if (y.numel() == 0) return;
  visit_floating(table.dtype(), [&](auto table_tag) {
    visit_floating(y.dtype(), [&](auto y_tag) {
      gather_rows(y.data<decltype(y_tag)>(), table.data<decltype(table_tag)>(), ids.data<int32_t>(),
                  ids.numel(), table.dim(1), mask);
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
void sum_rows(T* dtable, const Y* dy, const Occurrences& sorted, int64_t vocabulary, int64_t width,
              const DropoutMask& dropout, bool accumulate) {
  using C = Compute<T>;
  parallel_for(vocabulary, 64, [&](int64_t begin, int64_t end) {
    Scratch scratch;
    MaskRows mask(dropout, width, width, scratch);
    C* sum = scratch.take<C>(width);
    for (int64_t v = begin; v < end; ++v) {
      T* out = dtable + v * width;
      const int64_t first = sorted.start[static_cast<size_t>(v)];
      const int64_t last = sorted.start[static_cast<size_t>(v) + 1];
      if (first == last && accumulate) continue;
      std::fill_n(sum, width, C(0));
      for (int64_t i = first; i < last; ++i) {
        const int64_t n = sorted.order[static_cast<size_t>(i)];
        add_row(sum, dy + n * width, mask.words_of(n), dropout.threshold,
                static_cast<C>(dropout.factor), width);
      }
      if (accumulate)
        for (int64_t d = 0; d < width; ++d)
          out[d] = static_cast<T>(static_cast<C>(out[d]) + sum[d]);
      else
        for (int64_t d = 0; d < width; ++d) out[d] = static_cast<T>(sum[d]);
    }
  });
}

void backward_cpu(const Tensor& dtable, const Tensor& dy, const Tensor& ids,
                  const DropoutMask& mask, bool accumulate) {
  const Occurrences sorted = sort_by_id(ids, dtable.dim(0));
  visit_floating(dtable.dtype(), [&](auto table_tag) {
    visit_floating(dy.dtype(), [&](auto y_tag) {
      sum_rows(dtable.data<decltype(table_tag)>(), dy.data<decltype(y_tag)>(), sorted,
               dtable.dim(0), dtable.dim(1), mask, accumulate);
    });
  });
}

STMOE_REGISTER_KERNELS(EmbeddingKernels, cpu, {forward_cpu, backward_cpu})

}  // namespace
}  // namespace stmoe
