# SPDX-License-Identifier: Apache-2.0
# stmoe_add_room(NAME SOURCES a.cpp ... DEPENDS lower_room ... LINK third_party ...): one folder of lib/ as an object
# library `stmoe_NAME`. DEPENDS is the include direction that scripts/check_layers.py enforces.
function(stmoe_add_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;DEPENDS;LINK" ${ARGN})
  set(target stmoe_${name})
  add_library(${target} OBJECT ${ROOM_SOURCES})
  target_link_libraries(${target} PUBLIC stmoe_options ${ROOM_LINK})
  set(closure ${name})
  foreach(room ${ROOM_DEPENDS})
    target_link_libraries(${target} PUBLIC stmoe_${room})
    get_property(below GLOBAL PROPERTY STMOE_CLOSURE_${room})
    list(APPEND closure ${below})
  endforeach()
  list(REMOVE_DUPLICATES closure)
  set_property(GLOBAL PROPERTY STMOE_CLOSURE_${name} ${closure})
  set_property(GLOBAL APPEND PROPERTY STMOE_ROOMS ${name})
endfunction()

# stmoe_add_program(NAME SOURCES ...): an executable over the whole library.
function(stmoe_add_program name)
  cmake_parse_arguments(PROGRAM "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${PROGRAM_SOURCES})
  target_link_libraries(${name} PRIVATE $<LINK_LIBRARY:WHOLE_ARCHIVE,stmoe> ${PROGRAM_LINK})
  set_property(GLOBAL APPEND PROPERTY STMOE_PROGRAMS ${name})
endfunction()

# stmoe_add_test(ROOM [PROPERTIES ...]): every tests/ROOM/*_test.cpp as one Catch2 binary `test_ROOM` over the room and
# the rooms below it; each TEST_CASE is a CTest test.
function(stmoe_add_test room)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/${room}/*_test.cpp)
  get_property(closure GLOBAL PROPERTY STMOE_CLOSURE_${room})
  if(NOT sources OR NOT closure)
    return()
  endif()
  foreach(extra ${STMOE_TEST_EXTRA_${room}})
    get_property(below GLOBAL PROPERTY STMOE_CLOSURE_${extra})
    list(APPEND closure ${below})
  endforeach()
  list(REMOVE_DUPLICATES closure)
  add_executable(test_${room} ${sources})
  foreach(part ${closure})
    target_link_libraries(test_${room} PRIVATE stmoe_${part})
  endforeach()
  target_link_libraries(test_${room} PRIVATE Catch2::Catch2WithMain)
  if(TARGET stmoe_test_ops AND "autograd" IN_LIST closure)
    target_link_libraries(test_${room} PRIVATE stmoe_test_ops)
  endif()
  target_compile_options(test_${room} PRIVATE -O1)
  target_compile_definitions(test_${room} PRIVATE STMOE_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
                                                  STMOE_BINARY_DIR="${PROJECT_BINARY_DIR}")
  catch_discover_tests(test_${room} TEST_PREFIX "${room}: " ${ARGN}
                       PROPERTIES SKIP_REGULAR_EXPRESSION "skipped: " TIMEOUT 600)
endfunction()
