// SPDX-License-Identifier: Apache-2.0
// Matrix products on a GPU, by cuBLASLt. A plan's algorithm is the file's (algorithm_file.h), else
// the first that the library's heuristic names: no timing decides in a run. Lists of products are
// asked for one after the other.
#include "cuda/lib_ops/product.h"

#include <map>
#include <memory>

#include "cuda/lib_ops/pack_matrix.h"
#include "cuda/runtime/check.h"
#include "cuda/runtime/gpu.h"
#include "lib/base/error.h"
#include "lib/base/log.h"

namespace stmoe::gpu {
namespace {

class Plans {
 public:
  // Of the main thread, as all work on the device; never destroyed, as the streams.
  static Plans& instance() {
    static auto* const plans = new Plans;
    return *plans;
  }

  const ProductPlan& find(const ProductKey& key) {
    std::unique_ptr<ProductPlan>& plan = plans_[key];
    if (!plan) {
      auto made = std::make_unique<ProductPlan>(key);
      choose(*made);
      plan = std::move(made);
    }
    return *plan;
  }

  void use(const Algorithms& algorithms) {
    algorithms_ = algorithms;
    plans_.clear();
  }

 private:
  Plans() {
    const auto path = algorithm_path();
    if (!path) return;
    algorithms_ = read_algorithms(*path, platform());
    if (!algorithms_.empty())
      log_info("[products] algorithms of {} products from {}", algorithms_.size(), path->string());
    else if (std::filesystem::exists(*path))
      log_info("[products] {} has no algorithms for {}: the library's first choice is taken",
               path->string(), platform().text());
  }

  void choose(ProductPlan& plan) const {
    const auto known = algorithms_.find(plan.key().text());
    if (known != algorithms_.end()) {
      const cublasLtMatmulAlgo_t algorithm = from_algorithm(known->second);
      if (plan.admits(algorithm)) return plan.choose(algorithm);
      log_warn("[products] the algorithm kept for {} cannot run it; run --autotune again",
               plan.key().text());
    }
    plan.choose(plan.candidates(1)[0]);
  }

  std::map<ProductKey, std::unique_ptr<ProductPlan>> plans_;
  Algorithms algorithms_;
};

// A matrix that the library can read: itself, or a copy that lives as long as this.
class Readable {
 public:
  explicit Readable(const MatrixView& view) : view_(view) {
    if (operand_key(view)) return;
    copy_ = packed(view);
    view_ = matrix_view(copy_);
  }
  const MatrixView& view() const { return view_; }

 private:
  MatrixView view_;
  Tensor copy_;
};

void set_zero(const MatrixView& c) {
  const size_t element = size_of(c.dtype), width = static_cast<size_t>(c.cols) * element;
  const size_t pitch = c.rows > 1 ? static_cast<size_t>(c.row_stride) * element : width;
  for (int64_t i = 0; i < c.batch; ++i)
    STMOE_CHECK_CUDA(cudaMemset2DAsync(c.part(i, 0, c.rows, 0, c.cols).data, pitch, 0, width,
                                       static_cast<size_t>(c.rows), stream()));
}

void multiply_one(const Product& product, bool accumulate) {
  const auto& [c, a, b] = product;
  if (a.cols == 0) {  // not an empty sum added: lib/ops/product.cpp leaves that out
    if (!is_planning()) set_zero(c);
    return;
  }
  const Readable left(a), right(b);
  if (is_planning()) return;
  const Product readable{c, left.view(), right.view()};
  Plans::instance().find(product_key(readable, accumulate)).run(readable, workspace());
}

void multiply(std::span<const Product> list, bool accumulate) {
  for (const Product& product : list) multiply_one(product, accumulate);
}

}  // namespace

std::byte* workspace() {
  static auto* const buffer =
      new std::shared_ptr<Buffer>(allocate_on_heap(kWorkspaceBytes, Device::cuda));
  return (*buffer)->data();
}

void use_algorithms(const Algorithms& algorithms) { Plans::instance().use(algorithms); }

}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(ProductKernels, cuda, {gpu::multiply})

}  // namespace stmoe
