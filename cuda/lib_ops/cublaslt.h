// SPDX-License-Identifier: Apache-2.0
// cuBLASLt, opened when the first matrices are multiplied: programs start without it, and run on
// the CPU where it is not installed.
#pragma once

#include <source_location>

#include <cublasLt.h>

namespace stmoe::gpu {

// The functions used, and one handle. See cublasLt.h.
struct CublasLt {
  decltype(&cublasLtGetVersion) get_version;
  decltype(&cublasLtGetStatusName) get_status_name;
  decltype(&cublasLtGetStatusString) get_status_string;
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtMatmulDescCreate) create_description;
  decltype(&cublasLtMatmulDescDestroy) destroy_description;
  decltype(&cublasLtMatmulDescSetAttribute) set_description;
  decltype(&cublasLtMatrixLayoutCreate) create_layout;
  decltype(&cublasLtMatrixLayoutDestroy) destroy_layout;
  decltype(&cublasLtMatrixLayoutSetAttribute) set_layout;
  decltype(&cublasLtMatmulPreferenceCreate) create_preference;
  decltype(&cublasLtMatmulPreferenceDestroy) destroy_preference;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference;
  decltype(&cublasLtMatmulAlgoGetHeuristic) get_heuristic;
  decltype(&cublasLtMatmulAlgoCheck) check_algorithm;
  decltype(&cublasLtMatmul) multiply;
};

// Throws PeerError with the names tried where the library is not to be found. STMOE_CUBLASLT names
// another file.
const CublasLt& cublaslt();
// Made with the library's first use on the process's device.
cublasLtHandle_t cublaslt_handle();

void check_cublaslt(cublasStatus_t status, const char* call,
                    const std::source_location& where = std::source_location::current());
void log_cublaslt(cublasStatus_t status, const char* call) noexcept;

}  // namespace stmoe::gpu

#define STMOE_CHECK_CUBLASLT(...) ::stmoe::gpu::check_cublaslt((__VA_ARGS__), #__VA_ARGS__)
#define STMOE_LOG_CUBLASLT(...) ::stmoe::gpu::log_cublaslt((__VA_ARGS__), #__VA_ARGS__)
