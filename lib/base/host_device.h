// SPDX-License-Identifier: Apache-2.0
// Marks an inline function that host code and kernels of a GPU call, where it cannot be constexpr.
#pragma once

#if defined(__CUDACC__)
#define STMOE_HOST_DEVICE __host__ __device__ inline
#else
#define STMOE_HOST_DEVICE inline
#endif
