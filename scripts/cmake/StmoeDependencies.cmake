# SPDX-License-Identifier: Apache-2.0
# The packages of the project, all from the distribution. Each third-party target is linked by exactly the rooms that
# include its headers.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(yaml-cpp REQUIRED)
if(NOT TARGET yaml-cpp::yaml-cpp)
  add_library(yaml-cpp::yaml-cpp ALIAS yaml-cpp)
endif()
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(ZLIB REQUIRED)
pkg_check_modules(zstd REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(sentencepiece REQUIRED IMPORTED_TARGET sentencepiece)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)

set(STMOE_HAVE_MPI OFF)
if(NOT STMOE_MPI STREQUAL "OFF")
  find_package(MPI COMPONENTS C)
  if(MPI_C_FOUND)
    set(STMOE_HAVE_MPI ON)
  elseif(STMOE_MPI STREQUAL "ON")
    message(FATAL_ERROR "STMOE_MPI=ON, but no MPI was found: install libopenmpi-dev")
  endif()
endif()

set(HDF5_PREFER_PARALLEL ${STMOE_HAVE_MPI})
find_package(HDF5 REQUIRED COMPONENTS C)

include(StmoeCuda)
if(STMOE_NCCL STREQUAL "ON" AND NOT STMOE_HAVE_CUDA)
  message(FATAL_ERROR "STMOE_NCCL=ON needs the CUDA backend (STMOE_CUDA)")
endif()

message(STATUS "stmoe ${PROJECT_VERSION}: ${CMAKE_BUILD_TYPE}, MPI ${STMOE_HAVE_MPI}, CUDA ${STMOE_HAVE_CUDA}, "
               "HDF5 ${HDF5_VERSION}, sanitizers '${STMOE_SANITIZE}'")
