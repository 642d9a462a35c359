# Flags of the host face. They fix the arithmetic (no contraction) and keep the symbols of two
# builds apart when both are loaded into one process (hidden, no unique linkage).
include(CheckCXXCompilerFlag)
include(CheckCXXSourceRuns)

set(YAIE_HOST_FLAGS -fvisibility=hidden -fno-strict-aliasing -ffp-contract=off)
check_cxx_compiler_flag(-fno-gnu-unique YAIE_HAS_NO_GNU_UNIQUE)
if(YAIE_HAS_NO_GNU_UNIQUE)
  list(APPEND YAIE_HOST_FLAGS -fno-gnu-unique)
endif()

# File names in reports and debug lines are relative to the repository.
list(APPEND YAIE_HOST_FLAGS "-ffile-prefix-map=${CMAKE_SOURCE_DIR}/=")

# AVX2, FMA and F16C only where the building machine runs them.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(CMAKE_REQUIRED_FLAGS "-march=x86-64-v3")
  check_cxx_source_runs("
    int main() {
        __builtin_cpu_init();
        return __builtin_cpu_supports(\"avx2\") && __builtin_cpu_supports(\"bmi2\") &&
               __builtin_cpu_supports(\"f16c\") && __builtin_cpu_supports(\"fma\") ? 0 : 1;
    }" YAIE_RUNS_X86_64_V3)
  unset(CMAKE_REQUIRED_FLAGS)
  if(YAIE_RUNS_X86_64_V3)
    set(YAIE_MARCH -march=x86-64-v3)
    list(APPEND YAIE_HOST_FLAGS ${YAIE_MARCH})
  endif()
endif()
