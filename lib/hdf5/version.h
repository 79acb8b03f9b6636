// SPDX-License-Identifier: Apache-2.0
// Library versions for --version.
#pragma once

#include <string>

namespace stmoe {

std::string hdf5_version();  // "1.10.8"
// "Open MPI v4.1.4, ...", without starting MPI; "none" when MPI is not built in.
std::string mpi_version();

}  // namespace stmoe
