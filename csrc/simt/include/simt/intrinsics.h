// CUDA's math and bit intrinsics that <cmath> lacks. Fast forms are the accurate ones here: the
// comparison's budget covers the device's approximation.
#pragma once

#include <math.h>

#include <cmath>

#include "simt/atomics.h"
#include "simt/vocabulary.h"

// glibc declares some of these names, with C linkage, as aliases it does not export.
extern "C" {
inline float __expf(float x) noexcept { return ::expf(x); }
inline float __exp10f(float x) noexcept { return ::powf(10.0f, x); }
inline float __logf(float x) noexcept { return ::logf(x); }
inline float __log2f(float x) noexcept { return ::log2f(x); }
inline float __log10f(float x) noexcept { return ::log10f(x); }
inline float __powf(float x, float y) noexcept { return ::powf(x, y); }
inline float __sinf(float x) noexcept { return ::sinf(x); }
inline float __cosf(float x) noexcept { return ::cosf(x); }
inline float __tanf(float x) noexcept { return ::tanf(x); }
__forceinline__ void __sincosf(float x, float* sine, float* cosine) noexcept {
    *sine = ::sinf(x);
    *cosine = ::cosf(x);
}
}

inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float x) { return x > 1.0f ? 1.0f : (x > 0.0f ? x : 0.0f); }
inline float rsqrtf(float x) { return 1.0f / ::sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / ::sqrt(x); }
inline float __frsqrt_rn(float x) { return float(1.0 / ::sqrt(double(x))); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return ::sqrtf(x); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return ::fmaf(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return ::fma(a, b, c); }

// ---- min and max: CUDA's overloads; the floating ones ignore a NaN ------------------------------

#define SIMT_MIN_MAX(R, A, B)                                 \
    inline R min(A a, B b) {                                  \
        const R x = static_cast<R>(a), y = static_cast<R>(b); \
        return y < x ? y : x;                                 \
    }                                                         \
    inline R max(A a, B b) {                                  \
        const R x = static_cast<R>(a), y = static_cast<R>(b); \
        return x < y ? y : x;                                 \
    }
SIMT_MIN_MAX(int, int, int)
SIMT_MIN_MAX(unsigned, unsigned, unsigned)
SIMT_MIN_MAX(unsigned, int, unsigned)
SIMT_MIN_MAX(unsigned, unsigned, int)
SIMT_MIN_MAX(long, long, long)
SIMT_MIN_MAX(unsigned long, unsigned long, unsigned long)
SIMT_MIN_MAX(unsigned long, long, unsigned long)
SIMT_MIN_MAX(unsigned long, unsigned long, long)
SIMT_MIN_MAX(long long, long long, long long)
SIMT_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
SIMT_MIN_MAX(unsigned long long, long long, unsigned long long)
SIMT_MIN_MAX(unsigned long long, unsigned long long, long long)
#undef SIMT_MIN_MAX

inline float min(float a, float b) { return ::fminf(a, b); }
inline float max(float a, float b) { return ::fmaxf(a, b); }
inline double min(double a, double b) { return ::fmin(a, b); }
inline double max(double a, double b) { return ::fmax(a, b); }
inline double min(float a, double b) { return ::fmin(a, b); }
inline double max(float a, double b) { return ::fmax(a, b); }
inline double min(double a, float b) { return ::fmin(a, b); }
inline double max(double a, float b) { return ::fmax(a, b); }

// ---- Bits ---------------------------------------------------------------------------------------

inline int __float_as_int(float x) { return ::simt::detail::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return ::simt::detail::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return ::simt::detail::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return ::simt::detail::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return ::simt::detail::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return ::simt::detail::bit_cast<double>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }

inline unsigned __brev(unsigned x) {
    x = ((x >> 1) & 0x55555555u) | ((x & 0x55555555u) << 1);
    x = ((x >> 2) & 0x33333333u) | ((x & 0x33333333u) << 2);
    x = ((x >> 4) & 0x0f0f0f0fu) | ((x & 0x0f0f0f0fu) << 4);
    return __builtin_bswap32(x);
}
inline unsigned long long __brevll(unsigned long long x) {
    return ((unsigned long long)__brev(unsigned(x)) << 32) | __brev(unsigned(x >> 32));
}

// Byte i of the result is byte (selector >> 4i) & 7 of b:a.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const uint64_t bytes = (uint64_t(b) << 32) | a;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        const unsigned index = (selector >> (4 * i)) & 7;
        result |= (unsigned(bytes >> (8 * index)) & 0xff) << (8 * i);
    }
    return result;
}

// Shifts of the 64-bit value high:low, by shift modulo 32.
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return unsigned(((uint64_t(high) << 32 | low) << (shift & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}

inline int __mulhi(int a, int b) { return int((int64_t(a) * b) >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}

// ---- Conversions, saturating as on the device; NaN becomes 0 ------------------------------------

namespace simt {
namespace detail {
inline int saturate_to_int(double x) {
    if (std::isnan(x)) return 0;
    if (x <= -2147483648.0) return -2147483647 - 1;
    if (x >= 2147483647.0) return 2147483647;
    return int(x);
}
inline unsigned saturate_to_unsigned(double x) {
    if (!(x > 0)) return 0;
    return x >= 4294967295.0 ? 4294967295u : unsigned(x);
}
}  // namespace detail
}  // namespace simt

inline int __float2int_rn(float x) { return ::simt::detail::saturate_to_int(::rint(double(x))); }
inline int __float2int_rz(float x) { return ::simt::detail::saturate_to_int(::trunc(double(x))); }
inline int __float2int_ru(float x) { return ::simt::detail::saturate_to_int(::ceil(double(x))); }
inline int __float2int_rd(float x) { return ::simt::detail::saturate_to_int(::floor(double(x))); }
inline unsigned __float2uint_rn(float x) {
    return ::simt::detail::saturate_to_unsigned(::rint(double(x)));
}
inline unsigned __float2uint_rz(float x) {
    return ::simt::detail::saturate_to_unsigned(::trunc(double(x)));
}
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __double2float_rn(double x) { return float(x); }

// ---- Loads and stores with a cache hint: plain ones here ----------------------------------------

// Through the cache for what no thread writes while the kernel runs.
template <class T>
__forceinline__ T __ldg(const T* address, SIMT_CALL_SITE) {
    ::simt::detail::note_constant_load(address, sizeof(T), site);
    return *address;
}

#define SIMT_LOAD(name)                        \
    template <class T>                         \
    __forceinline__ T name(const T* address) { \
        return *address;                       \
    }
SIMT_LOAD(__ldcg)
SIMT_LOAD(__ldca)
SIMT_LOAD(__ldcs)
SIMT_LOAD(__ldlu)
SIMT_LOAD(__ldcv)
#undef SIMT_LOAD

#define SIMT_STORE(name)                                                         \
    template <class T>                                                           \
    __forceinline__ void name(T* address, ::simt::detail::NotDeduced<T> value) { \
        *address = value;                                                        \
    }
SIMT_STORE(__stwb)
SIMT_STORE(__stcg)
SIMT_STORE(__stcs)
SIMT_STORE(__stwt)
#undef SIMT_STORE
