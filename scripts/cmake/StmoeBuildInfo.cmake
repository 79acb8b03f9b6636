# SPDX-License-Identifier: Apache-2.0
# build_info.h: what --version prints. Included, it defines stmoe_add_build_info(TARGET); run as a script at every build,
# it writes the header anew when the git commit changed.
if(CMAKE_SCRIPT_MODE_FILE)
  set(commit unknown)
  execute_process(COMMAND git -C ${SOURCE_DIR} describe --always --dirty=-modified --abbrev=12 --exclude=*
                  OUTPUT_VARIABLE described OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed)
    set(commit ${described})
  endif()
  configure_file(${TEMPLATE} ${OUTPUT} @ONLY)
  return()
endif()

set(STMOE_BUILD_INFO_SCRIPT ${CMAKE_CURRENT_LIST_FILE})
function(stmoe_add_build_info target)
  set(directory ${CMAKE_CURRENT_BINARY_DIR}/generated)
  add_custom_target(${target}_build_info
    COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${PROJECT_SOURCE_DIR} -DTEMPLATE=${CMAKE_CURRENT_SOURCE_DIR}/build_info.h.in
            -DOUTPUT=${directory}/build_info.h -DVERSION=${PROJECT_VERSION} -DBUILD_TYPE=${CMAKE_BUILD_TYPE}
            "-DCOMPILER=${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}" -DHAVE_CUDA=${STMOE_HAVE_CUDA}
            -P ${STMOE_BUILD_INFO_SCRIPT}
    BYPRODUCTS ${directory}/build_info.h
    COMMENT "Asking git for the commit")
  add_dependencies(${target} ${target}_build_info)
  target_include_directories(${target} PRIVATE ${directory})
endfunction()
