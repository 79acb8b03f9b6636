// SPDX-License-Identifier: Apache-2.0
// Each candidate multiplies the same random matrices; its time is the median of a few groups of
// runs between two events. What follows a product in a step finds its results in the cache or not,
// as here.
#include <algorithm>
#include <set>
#include <vector>

#include "cuda/lib_ops/pack_matrix.h"
#include "cuda/lib_ops/product.h"
#include "cuda/runtime/event.h"
#include "cuda/runtime/gpu.h"
#include "lib/base/error.h"
#include "lib/base/log.h"
#include "lib/ops/product_tuning.h"

namespace stmoe::gpu {
namespace {

constexpr int kMostCandidates = 16, kGroups = 3;
constexpr double kGroupMilliseconds = 2;
constexpr int kMostRuns = 50;

// Elements from a matrix's first to its last.
int64_t extent(const MatrixView& view) {
  return (view.batch - 1) * view.batch_stride + (view.rows - 1) * view.row_stride +
         (view.cols - 1) * view.col_stride + 1;
}

// The recorded product on memory of its own, as well aligned as it was.
class OnRandomNumbers {
 public:
  explicit OnRandomNumbers(const Product& recorded) : product_(recorded) {
    for (MatrixView* view : {&product_.c, &product_.a, &product_.b}) {
      const auto shift = static_cast<int64_t>(reinterpret_cast<uintptr_t>(view->data) % 256 /
                                              size_of(view->dtype));
      const Tensor memory =
          Tensor::empty_on_heap({extent(*view) + shift}, view->dtype, Device::cuda);
      fill_random(memory);
      view->data = memory.raw() + static_cast<size_t>(shift) * size_of(view->dtype);
      view->device = Device::cuda;
      tensors_.push_back(memory);
    }
    // Matrices that no library can read are copied first: the copy is what is multiplied.
    for (MatrixView* view : {&product_.a, &product_.b})
      if (!operand_key(*view)) {
        tensors_.push_back(packed(*view));
        *view = matrix_view(tensors_.back());
      }
  }
  const Product& product() const { return product_; }

 private:
  Product product_;
  std::vector<Tensor> tensors_;
};

double milliseconds(const ProductPlan& plan, const Product& product, int runs) {
  Event begin(Event::Kind::time), end(Event::Kind::time);
  begin.record(stream());
  for (int i = 0; i < runs; ++i) plan.run(product, workspace());
  end.record(stream());
  end.wait();
  return static_cast<double>(end.milliseconds_since(begin)) / runs;
}

// Of one run, the median of the groups.
double time_plan(const ProductPlan& plan, const Product& product) {
  plan.run(product, workspace());  // loads the kernel
  const double first = milliseconds(plan, product, 1);
  const int runs =
      std::clamp(static_cast<int>(kGroupMilliseconds / std::max(first, 1e-4)), 1, kMostRuns);
  std::vector<double> times;
  for (int group = 0; group < kGroups; ++group) times.push_back(milliseconds(plan, product, runs));
  std::ranges::sort(times);
  return times[times.size() / 2];
}

struct Tuned {
  Algorithm algorithm;
  double first_microseconds = 0;  // of the heuristic's first choice
};

Tuned tune_one(const Product& product, const ProductKey& key) {
  ProductPlan plan(key);
  Tuned best;
  for (const cublasLtMatmulAlgo_t& candidate : plan.candidates(kMostCandidates)) {
    if (!plan.admits(candidate)) continue;
    plan.choose(candidate);
    const double microseconds = 1e3 * time_plan(plan, product);
    if (best.first_microseconds == 0) best.first_microseconds = microseconds;
    if (best.algorithm.microseconds == 0 || microseconds < best.algorithm.microseconds)
      best.algorithm = to_algorithm(candidate, microseconds);
  }
  return best;
}

std::string tune(std::span<const RecordedProduct> products) {
  const auto path = algorithm_path();
  if (!path)
    throw UsageError(
        "--autotune: there is no place for the file of algorithms; name it in STMOE_ALGORITHMS");
  Algorithms found;
  std::string table = format("{:>10} {:>10} {:>8} {:>6}  {}\n", "first, us", "best, us", "TFLOP/s",
                             "times", "product");
  double first_total = 0, best_total = 0;
  for (const RecordedProduct& recorded : products) {
    if (recorded.product.a.cols == 0) continue;
    const OnRandomNumbers numbers(recorded.product);
    const ProductKey key = product_key(numbers.product(), recorded.accumulate);
    const Tuned tuned = tune_one(numbers.product(), key);
    if (tuned.algorithm.microseconds == 0) continue;
    found.insert_or_assign(key.text(), tuned.algorithm);
    const auto count = static_cast<double>(recorded.count);
    first_total += count * tuned.first_microseconds;
    best_total += count * tuned.algorithm.microseconds;
    table += format("{:>10.1f} {:>10.1f} {:>8.1f} {:>6}  {}\n", tuned.first_microseconds,
                    tuned.algorithm.microseconds, key.flops() / tuned.algorithm.microseconds * 1e-6,
                    recorded.count, key.text());
  }
  write_algorithms(*path, platform(), found);
  use_algorithms(read_algorithms(*path, platform()));
  return table + format(
                     "all products of a step: {:.2f} ms by the first choice, {:.2f} ms by the "
                     "best; {} algorithms in {}\n",
                     first_total * 1e-3, best_total * 1e-3, found.size(), path->string());
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(ProductTuningKernels, cuda, {gpu::tune})

}  // namespace stmoe
