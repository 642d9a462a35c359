# What both faces have in common.

# Kernels; a new file is found without running cmake again by hand.
file(GLOB YAIE_KERNEL_SOURCES CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/csrc/*/*.cu)
list(FILTER YAIE_KERNEL_SOURCES EXCLUDE REGEX "/csrc/(simt|common)/")
set(YAIE_BINDINGS_SOURCE ${CMAKE_SOURCE_DIR}/csrc/bindings.cpp)

# All that the build id covers.
file(GLOB_RECURSE YAIE_HASHED_SOURCES CONFIGURE_DEPENDS
     ${CMAKE_SOURCE_DIR}/csrc/*.cpp ${CMAKE_SOURCE_DIR}/csrc/*.cu ${CMAKE_SOURCE_DIR}/csrc/*.S
     ${CMAKE_SOURCE_DIR}/csrc/*.cuh ${CMAKE_SOURCE_DIR}/csrc/*.h)
list(FILTER YAIE_HASHED_SOURCES EXCLUDE REGEX "/csrc/simt/tests/")

# yaie_face(<module> <flag>...): the extension yaie/<module>, its bindings as the object library
# <module>_bindings. The flags are those that the build id covers.
#
# The build id changes with every source, so it lives in a translation unit of its own:
# YAIE_BUILD_ID is a call into it, and unchanged sources keep their objects.
function(yaie_face module)
  set(id_source ${CMAKE_CURRENT_BINARY_DIR}/build_id.cpp)
  set(id_header ${CMAKE_CURRENT_BINARY_DIR}/build_id.h)
  file(CONFIGURE OUTPUT ${id_header} CONTENT "#pragma once
namespace yaie {
const char* build_id();
}
#define YAIE_BUILD_ID ::yaie::build_id()
")
  string(SHA256 flags_hash "${module} ${ARGN}")
  add_custom_command(
    OUTPUT ${id_source}
    COMMAND ${CMAKE_COMMAND} -D OUTPUT=${id_source} -D ROOT=${CMAKE_SOURCE_DIR}
            -D FLAGS_HASH=${flags_hash} -D "SOURCES=${YAIE_HASHED_SOURCES}"
            -P ${CMAKE_SOURCE_DIR}/cmake/build_id.cmake
    DEPENDS ${YAIE_HASHED_SOURCES} ${CMAKE_SOURCE_DIR}/cmake/build_id.cmake
    COMMENT "Build id of ${module}" VERBATIM)

  add_library(${module}_bindings OBJECT ${YAIE_BINDINGS_SOURCE})
  target_compile_options(${module}_bindings PRIVATE "SHELL:-include ${id_header}")
  target_compile_definitions(${module}_bindings PRIVATE YAIE_MODULE=${module})
  target_include_directories(${module}_bindings SYSTEM PRIVATE ${YAIE_PYBIND11_INCLUDE})
  target_link_libraries(${module}_bindings PRIVATE Python::Module)

  Python_add_library(${module} MODULE WITH_SOABI
    ${YAIE_KERNEL_SOURCES} ${id_source} $<TARGET_OBJECTS:${module}_bindings>)
  set_target_properties(${module} PROPERTIES INSTALL_RPATH "$ORIGIN")
  install(TARGETS ${module} LIBRARY DESTINATION yaie)

  foreach(target IN ITEMS ${module} ${module}_bindings)
    target_include_directories(${target} PRIVATE
      ${CMAKE_SOURCE_DIR}/csrc ${CMAKE_SOURCE_DIR}/csrc/simt/include)
  endforeach()
endfunction()
