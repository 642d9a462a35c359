# The checked build. Whoever links `simt` is compiled with GCC's thread and undefined-behaviour
# instrumentation and linked to the executor's own hooks; no sanitizer library takes part.
if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  message(FATAL_ERROR "SIMT_CHECKED needs g++: clang++ hides copies in calls of libc.")
endif()

target_sources(
  simt
  PRIVATE src/check/checker.cpp
          src/check/findings.cpp
          src/check/hooks.cpp
          src/check/memory.cpp
          src/check/module.cpp
          src/check/order.cpp
          src/check/undefined.cpp)
target_compile_definitions(simt PUBLIC SIMT_CHECKED)
target_link_libraries(simt PUBLIC ${CMAKE_DL_LIBS})

set(SIMT_INSTRUMENT
    -O1 -g
    -fsanitize=thread --param=tsan-instrument-func-entry-exit=0 --param=tsan-distinguish-volatile=1
    # An index beyond an array inside a larger one, shifts, overflows, alignment, null.
    -fsanitize=undefined -fno-sanitize=vptr,object-size
    # A local variable that was given no value holds one that shows in the results.
    -ftrivial-auto-var-init=pattern
    # Copies of known size stay calls, which the linker hands to the hooks. Ubuntu's g++ defines
    # _FORTIFY_SOURCE, whose headers put an inline function or __memcpy_chk in the place of memcpy.
    -U_FORTIFY_SOURCE -fno-builtin-memcpy -fno-builtin-memmove -fno-builtin-memset
    -fno-builtin-memcmp)
foreach(function memcpy memmove memset memcmp)
  target_link_options(simt INTERFACE "LINKER:--wrap=${function}")
endforeach()
