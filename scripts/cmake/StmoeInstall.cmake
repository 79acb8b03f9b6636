# SPDX-License-Identifier: Apache-2.0
# Installed: the executables and the recipes.
include(GNUInstallDirs)
get_property(programs GLOBAL PROPERTY STMOE_PROGRAMS)
if(programs)
  install(TARGETS ${programs} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/recipes DESTINATION ${CMAKE_INSTALL_DATADIR}/stmoe)
