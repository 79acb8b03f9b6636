// SPDX-License-Identifier: Apache-2.0
// What this build is.
#pragma once

#include <string>

namespace stmoe {

// "0.1.0 (3f2a9c1d0b4e)": for files that say what made them.
std::string version_text();
// The lines of --version.
std::string version_report(const std::string& program);
// Whether the CUDA backend is built in.
bool is_cuda_built();

}  // namespace stmoe
