// What the compiler calls in the plain build where -fsanitize=alignment finds an address that is not
// aligned to the type of the access. libubsan is not linked. An x86 core carries most such accesses
// out, a GPU none. (The checked build: check/undefined.cpp.)
#if !defined(SIMT_CHECKED)

#include <cstdio>
#include <cstdlib>

#include "block/block_runner.h"
#include "block/site.h"

namespace {

// The compiler's own layout, GCC's and Clang's.
struct TypeMismatch {
    const char* file;
    uint32_t line;
    uint32_t column;
    const void* type;
    unsigned char log_alignment;
    unsigned char access;
};

}  // namespace

extern "C" [[noreturn]] void __ubsan_handle_type_mismatch_v1_abort(TypeMismatch* data,
                                                                   uintptr_t address) {
    const simt::detail::Site site{data->file, int(data->line)};
    const std::size_t bytes = std::size_t(1) << data->log_alignment;
    if (simt::detail::current)
        simt::detail::fail_misaligned(reinterpret_cast<const void*>(address), bytes, site);
    std::fprintf(stderr, "misaligned access of the host at %s: multiples of %zu bytes only\n",
                 simt::detail::to_string(site).c_str(), bytes);
    std::abort();
}

#endif
