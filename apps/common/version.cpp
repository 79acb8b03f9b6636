// SPDX-License-Identifier: Apache-2.0
#include "apps/common/version.h"

#include "build_info.h"
#include "lib/base/cpu_level.h"
#include "lib/base/format.h"
#include "lib/hdf5/version.h"

namespace stmoe {

std::string version_text() { return format("{} ({})", kBuildVersion, kBuildCommit); }

bool is_cuda_built() { return kIsCudaBuilt; }

std::string version_report(const std::string& program) {
  std::string text = format("{} {}\n", program, kBuildVersion);
  auto line = [&](const char* name, const std::string& value) {
    text += format("  {:<11}{}\n", name, value);
  };
  line("git commit", kBuildCommit);
  line("build", format("{}, {}", kBuildType, kBuildCompiler));
  line("devices", is_cuda_built() ? "cpu, cuda" : "cpu");
  line("CPU level", std::string(name_of(cpu_level())));
  line("MPI", mpi_version());
  line("HDF5", hdf5_version());
  text.pop_back();
  return text;
}

}  // namespace stmoe
