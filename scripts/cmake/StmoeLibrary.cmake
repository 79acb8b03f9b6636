# SPDX-License-Identifier: Apache-2.0
# All rooms. Executables link the archive whole (stmoe_add_program), so that no registration is dropped.
get_property(rooms GLOBAL PROPERTY STMOE_ROOMS)
add_library(stmoe STATIC)
foreach(room ${rooms})
  target_link_libraries(stmoe PUBLIC stmoe_${room})
endforeach()
if(STMOE_HAVE_CUDA)
  target_link_libraries(stmoe PUBLIC stmoe_cuda stmoe_cuda_kernels)
endif()
stmoe_levels_of(levels ${rooms})
target_link_libraries(stmoe PUBLIC ${levels})
