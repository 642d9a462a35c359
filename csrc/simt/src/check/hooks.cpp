// What GCC calls before every access of code compiled with -fsanitize=thread, and around the memory
// functions of libc (the linker's --wrap). libtsan is not linked. These functions are not
// instrumented themselves.
#include <cstring>

#include "check/checker.h"

namespace {

using simt::detail::Checker;
using simt::detail::checking;
using simt::detail::Module;

inline void access(const volatile void* address, std::size_t bytes, uint32_t flags,
                   const void* caller) {
    if (Checker* const checker = checking)
        checker->access(reinterpret_cast<uintptr_t>(address), bytes, flags,
                        Module::where_of(caller));
}

}  // namespace

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

#define SIMT_CALLER __builtin_return_address(0)

#define SIMT_HOOKS(bytes)                                                                       \
    void __tsan_read##bytes(void* p) { access(p, bytes, 0, SIMT_CALLER); }                      \
    void __tsan_write##bytes(void* p) { access(p, bytes, simt::detail::kWrites, SIMT_CALLER); } \
    void __tsan_unaligned_read##bytes(void* p) { access(p, bytes, 0, SIMT_CALLER); }            \
    void __tsan_unaligned_write##bytes(void* p) {                                               \
        access(p, bytes, simt::detail::kWrites, SIMT_CALLER);                                   \
    }                                                                                           \
    void __tsan_volatile_read##bytes(void* p) {                                                 \
        simt::detail::volatile_access(p, bytes, 0, SIMT_CALLER);                                \
    }                                                                                           \
    void __tsan_volatile_write##bytes(void* p) {                                                \
        simt::detail::volatile_access(p, bytes, simt::detail::kWrites, SIMT_CALLER);            \
    }
SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)
#undef SIMT_HOOKS

void __tsan_read_range(void* p, std::size_t bytes) {
    if (bytes) access(p, bytes, 0, SIMT_CALLER);
}
void __tsan_write_range(void* p, std::size_t bytes) {
    if (bytes) access(p, bytes, simt::detail::kWrites, SIMT_CALLER);
}

// CUDA's atomics were judged by note_atomic, and threads switch in hooks alone: plain operations do.
// That a kernel uses C++'s own atomics is not provided for.
#define SIMT_ATOMIC_HOOKS(T, bits)                                                              \
    T __tsan_atomic##bits##_load(const volatile T* p, int) { return *p; }                       \
    void __tsan_atomic##bits##_store(volatile T* p, T value, int) { *p = value; }               \
    T __tsan_atomic##bits##_exchange(volatile T* p, T value, int) {                             \
        const T old = *p;                                                                       \
        *p = value;                                                                             \
        return old;                                                                             \
    }                                                                                           \
    T __tsan_atomic##bits##_fetch_add(volatile T* p, T value, int) {                            \
        const T old = *p;                                                                       \
        *p = T(old + value);                                                                    \
        return old;                                                                             \
    }                                                                                           \
    T __tsan_atomic##bits##_fetch_sub(volatile T* p, T value, int) {                            \
        const T old = *p;                                                                       \
        *p = T(old - value);                                                                    \
        return old;                                                                             \
    }                                                                                           \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile T* p, T* expected, T value, int, \
                                                      int) {                                    \
        const T old = *p;                                                                       \
        const bool same = old == *expected;                                                     \
        if (same)                                                                               \
            *p = value;                                                                         \
        else                                                                                    \
            *expected = old;                                                                    \
        return same;                                                                            \
    }                                                                                           \
    int __tsan_atomic##bits##_compare_exchange_weak(volatile T* p, T* expected, T value, int o, \
                                                    int f) {                                    \
        return __tsan_atomic##bits##_compare_exchange_strong(p, expected, value, o, f);         \
    }
SIMT_ATOMIC_HOOKS(uint8_t, 8)
SIMT_ATOMIC_HOOKS(uint16_t, 16)
SIMT_ATOMIC_HOOKS(uint32_t, 32)
SIMT_ATOMIC_HOOKS(uint64_t, 64)
#undef SIMT_ATOMIC_HOOKS
void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}

// ---- libc, by the linker's --wrap ---------------------------------------------------------------

void* __real_memcpy(void*, const void*, std::size_t);
void* __real_memmove(void*, const void*, std::size_t);
void* __real_memset(void*, int, std::size_t);
int __real_memcmp(const void*, const void*, std::size_t);

void* __wrap_memcpy(void* to, const void* from, std::size_t bytes) {
    if (bytes) {
        access(from, bytes, 0, SIMT_CALLER);
        access(to, bytes, simt::detail::kWrites, SIMT_CALLER);
    }
    return __real_memcpy(to, from, bytes);
}
void* __wrap_memmove(void* to, const void* from, std::size_t bytes) {
    if (bytes) {
        access(from, bytes, 0, SIMT_CALLER);
        access(to, bytes, simt::detail::kWrites, SIMT_CALLER);
    }
    return __real_memmove(to, from, bytes);
}
void* __wrap_memset(void* to, int value, std::size_t bytes) {
    if (bytes) access(to, bytes, simt::detail::kWrites, SIMT_CALLER);
    return __real_memset(to, value, bytes);
}
int __wrap_memcmp(const void* a, const void* b, std::size_t bytes) {
    if (bytes) {
        access(a, bytes, 0, SIMT_CALLER);
        access(b, bytes, 0, SIMT_CALLER);
    }
    return __real_memcmp(a, b, bytes);
}

}  // extern "C"
