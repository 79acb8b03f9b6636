// SPDX-License-Identifier: Apache-2.0
// Algorithms of matrix products that were found by timing (stmoe-pretrain --autotune), kept in a
// text file: a run that must repeat takes them from there, never from a timing of its own. They
// hold for one version of cuBLASLt, one model of GPU and its number of multiprocessors; the file
// has a section for each:
//
//   stmoe product algorithms 1
//   [cublasLt 130100, NVIDIA H200, 132 multiprocessors]
//   bf16>f32 768x3072x4096 batch 8 A^T ... = 12.5 us 0000000000000042 ... (eight words)
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "lib/base/files.h"

namespace stmoe::gpu {

struct Platform {
  int64_t cublaslt_version = 0;
  std::string device;
  int multiprocessors = 0;
  std::string text() const;  // the section's name
};

struct Algorithm {
  std::array<uint64_t, 8> words{};  // cublasLtMatmulAlgo_t
  double microseconds = 0;
};

using Algorithms = std::map<std::string, Algorithm>;  // by ProductKey::text

// STMOE_ALGORITHMS in the environment (none when it is "none"), else stmoe/algorithms.txt in
// XDG_CACHE_HOME or ~/.cache; none without a home.
std::optional<Path> algorithm_path();

// A platform's section, empty when there is no file. Throws InputError that names file and line.
Algorithms read_algorithms(const Path& path, const Platform& platform);

// Adds to a platform's section, or replaces what it says of the same products; other sections stay.
void write_algorithms(const Path& path, const Platform& platform, const Algorithms& algorithms);

}  // namespace stmoe::gpu
