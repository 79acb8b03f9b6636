// SPDX-License-Identifier: Apache-2.0
#include "cuda/lib_ops/product_plan.h"

#include <bit>

#include "cuda/runtime/gpu.h"
#include "lib/base/error.h"

namespace stmoe::gpu {
namespace {

cudaDataType_t type_of(DType dtype) {
  return dtype == DType::bf16 ? CUDA_R_16BF : dtype == DType::f64 ? CUDA_R_64F : CUDA_R_32F;
}

// f32 in f32: no TF32, which has 10 bits.
cublasComputeType_t compute_type_of(DType dtype) {
  return dtype == DType::f64 ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F;
}

template <class T>
void set(cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t attribute, T value) {
  STMOE_CHECK_CUBLASLT(cublaslt().set_description(description, attribute, &value, sizeof(value)));
}
template <class T>
void set(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute, T value) {
  STMOE_CHECK_CUBLASLT(cublaslt().set_layout(layout, attribute, &value, sizeof(value)));
}
template <class T>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
         T value) {
  STMOE_CHECK_CUBLASLT(cublaslt().set_preference(preference, attribute, &value, sizeof(value)));
}

}  // namespace

void ProductPlan::Delete::operator()(cublasLtMatmulDescOpaque_t* it) const {
  STMOE_LOG_CUBLASLT(cublaslt().destroy_description(it));
}
void ProductPlan::Delete::operator()(cublasLtMatrixLayoutOpaque_t* it) const {
  STMOE_LOG_CUBLASLT(cublaslt().destroy_layout(it));
}
void ProductPlan::Delete::operator()(cublasLtMatmulPreferenceOpaque_t* it) const {
  STMOE_LOG_CUBLASLT(cublaslt().destroy_preference(it));
}

// `rows` and `cols` are of the row-major matrix; in memory lies its transpose by columns, or with
// is_transposed itself.
ProductPlan::Layout ProductPlan::make_layout(const OperandKey& operand, DType dtype, int64_t rows,
                                             int64_t cols) const {
  if (!operand.is_transposed) std::swap(rows, cols);
  cublasLtMatrixLayout_t made = nullptr;
  STMOE_CHECK_CUBLASLT(cublaslt().create_layout(&made, type_of(dtype), static_cast<uint64_t>(rows),
                                                static_cast<uint64_t>(cols), operand.leading));
  Layout layout(made);
  set(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, static_cast<int32_t>(key_.batch));
  set(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, operand.batch_stride);
  return layout;
}

ProductPlan::ProductPlan(const ProductKey& key) : key_(key) {
  STMOE_CHECK(key.batch <= INT32_MAX, "product: {} matrices at once", key.batch);
  cublasLtMatmulDesc_t made = nullptr;
  STMOE_CHECK_CUBLASLT(cublaslt().create_description(
      &made, compute_type_of(key.operands), key.operands == DType::f64 ? CUDA_R_64F : CUDA_R_32F));
  description_.reset(made);
  const auto operation = [](const OperandKey& operand) {
    return static_cast<int32_t>(operand.is_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  };
  set(made, CUBLASLT_MATMUL_DESC_TRANSA, operation(key.b));
  set(made, CUBLASLT_MATMUL_DESC_TRANSB, operation(key.a));
  a_ = make_layout(key.a, key.operands, key.m, key.k);
  b_ = make_layout(key.b, key.operands, key.k, key.n);
  c_ = make_layout(key.c, key.result, key.m, key.n);
}

std::vector<cublasLtMatmulAlgo_t> ProductPlan::candidates(int most) const {
  cublasLtMatmulPreference_t made = nullptr;
  STMOE_CHECK_CUBLASLT(cublaslt().create_preference(&made));
  const std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, Delete> preference(made);
  set(made, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kWorkspaceBytes));
  // Sums of a divided k are never rounded to bf16.
  uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  if (key_.result == DType::bf16) reductions &= ~uint32_t{CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE};
  set(made, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions);
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(key_.b.alignment));
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(key_.a.alignment));
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(key_.c.alignment));
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(key_.c.alignment));
  std::vector<cublasLtMatmulHeuristicResult_t> found(static_cast<size_t>(most));
  int count = 0;
  const cublasStatus_t status =
      cublaslt().get_heuristic(cublaslt_handle(), description_.get(), b_.get(), a_.get(), c_.get(),
                               c_.get(), made, most, found.data(), &count);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED)
    check_cublaslt(status, format("algorithms for {}", key_.text()).c_str());
  std::vector<cublasLtMatmulAlgo_t> result;
  for (int i = 0; i < count; ++i)
    if (const auto& one = found[static_cast<size_t>(i)]; one.state == CUBLAS_STATUS_SUCCESS)
      result.push_back(one.algo);
  if (result.empty())
    throw PeerError(format("cuBLASLt {} offers no algorithm for the product {}",
                           cublaslt().get_version(), key_.text()));
  return result;
}

bool ProductPlan::admits(const cublasLtMatmulAlgo_t& algorithm) const {
  cublasLtMatmulHeuristicResult_t result{};
  const cublasStatus_t status =
      cublaslt().check_algorithm(cublaslt_handle(), description_.get(), b_.get(), a_.get(),
                                 c_.get(), c_.get(), &algorithm, &result);
  return status == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= kWorkspaceBytes;
}

void ProductPlan::run(const Product& product, std::byte* workspace) const {
  // By value, in a recorded step too.
  const double one64 = 1, zero64 = 0;
  const float one32 = 1, zero32 = 0;
  const bool is_f64 = key_.operands == DType::f64;
  const void* one = is_f64 ? static_cast<const void*>(&one64) : &one32;
  const void* zero = is_f64 ? static_cast<const void*>(&zero64) : &zero32;
  const cublasStatus_t status = cublaslt().multiply(
      cublaslt_handle(), description_.get(), one, product.b.data, b_.get(), product.a.data,
      a_.get(), key_.accumulates ? one : zero, product.c.data, c_.get(), product.c.data, c_.get(),
      &algorithm_, workspace, kWorkspaceBytes, stream());
  if (status != CUBLAS_STATUS_SUCCESS) [[unlikely]]
    check_cublaslt(status, format("cublasLtMatmul of {}", key_.text()).c_str());
}

Algorithm to_algorithm(const cublasLtMatmulAlgo_t& algorithm, double microseconds) {
  return {std::bit_cast<std::array<uint64_t, 8>>(algorithm), microseconds};
}
cublasLtMatmulAlgo_t from_algorithm(const Algorithm& algorithm) {
  return std::bit_cast<cublasLtMatmulAlgo_t>(algorithm.words);
}

Platform platform() {
  return {static_cast<int64_t>(cublaslt().get_version()), gpu().name, gpu().multiprocessors};
}

}  // namespace stmoe::gpu
