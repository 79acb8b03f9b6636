// SPDX-License-Identifier: Apache-2.0
// A product's descriptors for cuBLASLt, made once and used as often as its key comes. Row-major
// matrices are handed over as the column-major transposes that the same memory is (gpu.md 2.3):
// C^T [n, m] = B^T A^T, so that cuBLASLt's A is our B.
#pragma once

#include <memory>
#include <vector>

#include "cuda/lib_ops/algorithm_file.h"
#include "cuda/lib_ops/cublaslt.h"
#include "cuda/lib_ops/product_key.h"

namespace stmoe::gpu {

// What NVIDIA advises for Hopper; products of one stream take turns with it.
inline constexpr size_t kWorkspaceBytes = size_t{32} << 20;

class ProductPlan {
 public:
  explicit ProductPlan(const ProductKey& key);

  // What the library offers for it, best first by its own estimate. Throws PeerError when there is
  // nothing.
  std::vector<cublasLtMatmulAlgo_t> candidates(int most) const;
  // Whether the algorithm can run it, in kWorkspaceBytes.
  bool admits(const cublasLtMatmulAlgo_t& algorithm) const;
  void choose(const cublasLtMatmulAlgo_t& algorithm) { algorithm_ = algorithm; }

  // Asks for the product on stream(), by the chosen algorithm.
  void run(const Product& product, std::byte* workspace) const;

  const ProductKey& key() const { return key_; }

 private:
  struct Delete {
    void operator()(cublasLtMatmulDescOpaque_t* it) const;
    void operator()(cublasLtMatrixLayoutOpaque_t* it) const;
    void operator()(cublasLtMatmulPreferenceOpaque_t* it) const;
  };
  using Layout = std::unique_ptr<cublasLtMatrixLayoutOpaque_t, Delete>;
  Layout make_layout(const OperandKey& operand, DType dtype, int64_t rows, int64_t cols) const;

  ProductKey key_;
  std::unique_ptr<cublasLtMatmulDescOpaque_t, Delete> description_;
  Layout a_, b_, c_;  // ours
  cublasLtMatmulAlgo_t algorithm_{};
};

Algorithm to_algorithm(const cublasLtMatmulAlgo_t& algorithm, double microseconds);
cublasLtMatmulAlgo_t from_algorithm(const Algorithm& algorithm);

// The library and the device of this process.
Platform platform();

}  // namespace stmoe::gpu
