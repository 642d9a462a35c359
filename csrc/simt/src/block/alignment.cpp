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

// As GCC declares it itself where this file is compiled for a sanitizer too.
extern "C" [[noreturn]] void __ubsan_handle_type_mismatch_v1_abort(void* data, void* address) {
    const TypeMismatch& mismatch = *static_cast<const TypeMismatch*>(data);
    const simt::detail::Site site{mismatch.file, int(mismatch.line)};
    const std::size_t bytes = std::size_t(1) << mismatch.log_alignment;
    if (simt::detail::current) simt::detail::fail_misaligned(address, bytes, site);
    std::fprintf(stderr, "misaligned access of the host at %s: multiples of %zu bytes only\n",
                 simt::detail::to_string(site).c_str(), bytes);
    std::abort();
}

#endif
