#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Compiles every CUDA source for each architecture that is supported, warnings as errors, without the compiler cache, and says how
# long it took. Needs nvcc, no GPU. usage: scripts/ci/nvcc.sh [--cached] [BUILD_DIR]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
launcher=(-DCMAKE_CUDA_COMPILER_LAUNCHER=env -DCMAKE_CXX_COMPILER_LAUNCHER=env)   # env alone runs what follows: no cache
if [ "${1:-}" = --cached ]; then
  launcher=()
  shift
fi
build=${1:-build/nvcc}
cmake --preset release -B "$build" -DSTMOE_CUDA=ON -DSTMOE_WERROR=ON "-DSTMOE_CUDA_ARCHITECTURES=80-real;90-real;90a-real" \
  "${launcher[@]}"
cmake --build "$build" --target clean >/dev/null
TIMEFORMAT="%R s on $(nproc) cores, %U s of processor time"
echo "CUDA: $(find cuda -name '*.cu' | wc -l) files for sm_80, sm_90 and sm_90a"
time cmake --build "$build" --parallel "$(nproc)" --target stmoe_cuda_kernels stmoe_cuda
