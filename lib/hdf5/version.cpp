// SPDX-License-Identifier: Apache-2.0
#include "lib/hdf5/version.h"

#include "lib/hdf5/library.h"

#ifdef STMOE_HAVE_MPI
#include <mpi.h>
#endif

namespace stmoe {

std::string hdf5_version() {
  auto lock = detail::lock_hdf5();
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return format("{}.{}.{}", major, minor, release);
}

std::string mpi_version() {
#ifdef STMOE_HAVE_MPI
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  if (MPI_Get_library_version(text, &length) != MPI_SUCCESS) return "unknown";
  std::string version(text, static_cast<size_t>(length));
  return version.substr(0, version.find_first_of(",\n"));
#else
  return "none";
#endif
}

}  // namespace stmoe
