// SPDX-License-Identifier: Apache-2.0
#include "cuda/lib_ops/cublaslt.h"

#include <cstdlib>
#include <string>
#include <vector>

#include <dlfcn.h>

#include "cuda/runtime/gpu.h"
#include "lib/base/error.h"
#include "lib/base/log.h"

namespace stmoe::gpu {
namespace {

constexpr const char* kLibrary = "libcublasLt.so.13";

// The dynamic linker's own places (beside the program in a bundle, LD_LIBRARY_PATH), then those of
// the toolkit.
std::vector<std::string> places() {
  if (const char* named = std::getenv("STMOE_CUBLASLT")) return {named};
  std::vector<std::string> result{kLibrary};
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"})
    if (const char* root = std::getenv(variable))
      result.push_back(format("{}/lib64/{}", root, kLibrary));
  result.push_back(format("/usr/local/cuda/lib64/{}", kLibrary));
  return result;
}

void* open_library() {
  std::string first;
  for (const std::string& place : places()) {
    if (void* library = ::dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    const char* reason = ::dlerror();
    if (first.empty()) first = reason ? reason : place;
  }
  throw PeerError(
      format("cuBLASLt cannot be opened, which multiplies matrices on the GPU: {}; install the "
             "libraries of CUDA 13, or name their folder in LD_LIBRARY_PATH",
             first));
}

template <class Function>
void find(void* library, const char* name, Function& function) {
  void* const address = ::dlsym(library, name);
  if (!address) throw PeerError(format("{} has no function '{}'", kLibrary, name));
  function = reinterpret_cast<Function>(address);
}

CublasLt load() {
  void* const library = open_library();
  CublasLt lt{};
  find(library, "cublasLtGetVersion", lt.get_version);
  find(library, "cublasLtGetStatusName", lt.get_status_name);
  find(library, "cublasLtGetStatusString", lt.get_status_string);
  find(library, "cublasLtCreate", lt.create);
  find(library, "cublasLtMatmulDescCreate", lt.create_description);
  find(library, "cublasLtMatmulDescDestroy", lt.destroy_description);
  find(library, "cublasLtMatmulDescSetAttribute", lt.set_description);
  find(library, "cublasLtMatrixLayoutCreate", lt.create_layout);
  find(library, "cublasLtMatrixLayoutDestroy", lt.destroy_layout);
  find(library, "cublasLtMatrixLayoutSetAttribute", lt.set_layout);
  find(library, "cublasLtMatmulPreferenceCreate", lt.create_preference);
  find(library, "cublasLtMatmulPreferenceDestroy", lt.destroy_preference);
  find(library, "cublasLtMatmulPreferenceSetAttribute", lt.set_preference);
  find(library, "cublasLtMatmulAlgoGetHeuristic", lt.get_heuristic);
  find(library, "cublasLtMatmulAlgoCheck", lt.check_algorithm);
  find(library, "cublasLtMatmul", lt.multiply);
  return lt;
}

std::string describe(cublasStatus_t status, const char* call, const char* file, unsigned line) {
  const std::string path(file);
  const size_t at = path.rfind("/cuda/");
  return format("cuBLASLt: {} at {}:{}: {} ({}): {}", call,
                at == std::string::npos ? path : path.substr(at + 1), line,
                cublaslt().get_status_name(status), static_cast<int>(status),
                cublaslt().get_status_string(status));
}

}  // namespace

const CublasLt& cublaslt() {
  static const CublasLt library = load();
  return library;
}

cublasLtHandle_t cublaslt_handle() {
  // Never destroyed: the driver may be gone before it would be.
  static const cublasLtHandle_t handle = [] {
    static_cast<void>(stream());  // throws where there is no device
    cublasLtHandle_t made = nullptr;
    STMOE_CHECK_CUBLASLT(cublaslt().create(&made));
    return made;
  }();
  return handle;
}

void check_cublaslt(cublasStatus_t status, const char* call, const std::source_location& where) {
  if (status != CUBLAS_STATUS_SUCCESS) [[unlikely]]
    throw PeerError(describe(status, call, where.file_name(), where.line()));
}

void log_cublaslt(cublasStatus_t status, const char* call) noexcept {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  try {
    log_warn("{}", describe(status, call, "a destructor", 0));
  } catch (...) {
  }
}

}  // namespace stmoe::gpu
