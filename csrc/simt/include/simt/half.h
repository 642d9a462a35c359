// __half and __nv_bfloat16 for a host compiler, bit for bit what the device stores.
#pragma once

#include <cmath>
#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "simt/vocabulary.h"

namespace simt {
namespace detail {

template <class To, class From>
__forceinline__ To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From), "a cast of bits keeps the size");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}
__forceinline__ uint32_t float_bits(float x) { return bit_cast<uint32_t>(x); }
__forceinline__ float float_from_bits(uint32_t bits) { return bit_cast<float>(bits); }

// Drops the low `count` bits, rounding to nearest, ties to even.
__forceinline__ uint32_t round_off(uint32_t bits, int count) {
    const uint32_t half_minus_one = (1u << (count - 1)) - 1;
    const uint32_t odd = (bits >> count) & 1;
    return (bits + half_minus_one + odd) >> count;
}

// ---- fp16: 1 sign, 5 exponent (bias 15), 10 mantissa bits ---------------------------------------

inline uint16_t half_bits_portable(float x) {
    constexpr uint32_t kInfinity = 0x7f800000u;
    constexpr uint32_t kSmallestNormal = 0x38800000u;  // 2^-14
    constexpr uint32_t kOverflow = 0x47800000u;        // 2^16: rounds to infinity, with all above
    constexpr uint32_t kRebias = (127 - 15) << 23;
    const uint32_t sign = (float_bits(x) >> 16) & 0x8000u;
    const uint32_t magnitude = float_bits(x) & 0x7fffffffu;

    if (magnitude > kInfinity) return uint16_t(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    if (magnitude >= kOverflow) return uint16_t(sign | 0x7c00u);
    if (magnitude >= kSmallestNormal) return uint16_t(sign | round_off(magnitude - kRebias, 13));
    // Subnormal: adding 0.5 lets the float adder round at 2^-24, the spacing of half subnormals.
    const float aligned = float_from_bits(magnitude) + 0.5f;
    return uint16_t(sign | (float_bits(aligned) - 0x3f000000u));
}

inline float half_value_portable(uint16_t bits) {
    constexpr uint32_t kRebias = (127 - 15) << 23;
    const uint32_t sign = uint32_t(bits & 0x8000u) << 16;
    const uint32_t exponent = bits & 0x7c00u;
    const uint32_t mantissa = bits & 0x03ffu;

    if (exponent == 0x7c00u) {
        const uint32_t quiet = mantissa ? 0x400000u : 0;
        return float_from_bits(sign | 0x7f800000u | quiet | (mantissa << 13));
    }
    if (exponent == 0) {
        const float magnitude = float(mantissa) * 0x1p-24f;
        return float_from_bits(sign | float_bits(magnitude));
    }
    return float_from_bits(sign | (((exponent | mantissa) << 13) + kRebias));
}

__forceinline__ uint16_t half_bits(float x) {
#if defined(__F16C__)
    return uint16_t(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT));
#else
    return half_bits_portable(x);
#endif
}

__forceinline__ float half_value(uint16_t bits) {
#if defined(__F16C__)
    return _cvtsh_ss(bits);
#else
    return half_value_portable(bits);
#endif
}

// ---- bf16: the upper half of a float ------------------------------------------------------------

__forceinline__ uint16_t bfloat16_bits(float x) {
    const uint32_t bits = float_bits(x);
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return uint16_t(is_nan ? (bits >> 16) | 0x40u : round_off(bits, 16));
}
__forceinline__ float bfloat16_value(uint16_t bits) {
    return float_from_bits(uint32_t(bits) << 16);
}

// A double rounded to odd: rounding the float once more, to a half or bfloat16, gives what one
// rounding of the double would have given.
inline float round_to_odd(double x) {
    const float nearest = float(x);
    if (std::isnan(x) || double(nearest) == x) return nearest;
    const bool too_large = std::fabs(double(nearest)) > std::fabs(x);
    return float_from_bits((float_bits(nearest) - too_large) | 1u);
}

}  // namespace detail
}  // namespace simt

// ---- The types ----------------------------------------------------------------------------------

#define SIMT_HALF_TYPE(Name, to_bits, to_value)                                                 \
    struct Name##_raw {                                                                         \
        unsigned short x;                                                                       \
    };                                                                                          \
    struct alignas(2) Name {                                                                    \
        Name() = default;                                                                       \
        __forceinline__ Name(const Name##_raw& raw) : __x(raw.x) {}                             \
        __forceinline__ Name(float v) : __x(::simt::detail::to_bits(v)) {}                      \
        __forceinline__ Name(double v) : Name(::simt::detail::round_to_odd(v)) {}               \
        __forceinline__ Name(int v) : Name(double(v)) {}                                        \
        __forceinline__ Name(unsigned v) : Name(double(v)) {}                                   \
        __forceinline__ Name(short v) : Name(float(v)) {}                                       \
        __forceinline__ Name(unsigned short v) : Name(float(v)) {}                              \
        __forceinline__ operator float() const { return ::simt::detail::to_value(__x); }        \
        __forceinline__ operator Name##_raw() const { return {__x}; }                           \
                                                                                                \
        unsigned short __x;                                                                     \
    };                                                                                          \
    struct alignas(4) Name##2 { Name x, y; };                                                   \
    /* A float carries the exact sum, difference or product far enough that the */              \
    /* second rounding changes nothing (24 >= 2 * 11 + 2); so does a quotient.  */              \
    __forceinline__ Name operator+(Name a, Name b) { return Name(float(a) + float(b)); }        \
    __forceinline__ Name operator-(Name a, Name b) { return Name(float(a) - float(b)); }        \
    __forceinline__ Name operator*(Name a, Name b) { return Name(float(a) * float(b)); }        \
    __forceinline__ Name operator/(Name a, Name b) { return Name(float(a) / float(b)); }        \
    __forceinline__ Name operator-(Name a) {                                                    \
        return Name##_raw{(unsigned short)(Name##_raw(a).x ^ 0x8000u)};                         \
    }                                                                                           \
    __forceinline__ Name operator+(Name a) { return a; }                                        \
    __forceinline__ Name& operator+=(Name& a, Name b) { return a = a + b; }                     \
    __forceinline__ Name& operator-=(Name& a, Name b) { return a = a - b; }                     \
    __forceinline__ Name& operator*=(Name& a, Name b) { return a = a * b; }                     \
    __forceinline__ Name& operator/=(Name& a, Name b) { return a = a / b; }                     \
    __forceinline__ bool operator==(Name a, Name b) { return float(a) == float(b); }            \
    __forceinline__ bool operator!=(Name a, Name b) { return float(a) != float(b); }            \
    __forceinline__ bool operator<(Name a, Name b) { return float(a) < float(b); }              \
    __forceinline__ bool operator>(Name a, Name b) { return float(a) > float(b); }              \
    __forceinline__ bool operator<=(Name a, Name b) { return float(a) <= float(b); }            \
    __forceinline__ bool operator>=(Name a, Name b) { return float(a) >= float(b); }            \
    __forceinline__ Name __hadd(Name a, Name b) { return a + b; }                               \
    __forceinline__ Name __hsub(Name a, Name b) { return a - b; }                               \
    __forceinline__ Name __hmul(Name a, Name b) { return a * b; }                               \
    __forceinline__ Name __hdiv(Name a, Name b) { return a / b; }                               \
    __forceinline__ Name __hneg(Name a) { return -a; }                                          \
    __forceinline__ Name __habs(Name a) {                                                       \
        return Name##_raw{(unsigned short)(Name##_raw(a).x & 0x7fffu)};                         \
    }                                                                                           \
    __forceinline__ Name __hmax(Name a, Name b) { return Name(std::fmax(float(a), float(b))); } \
    __forceinline__ Name __hmin(Name a, Name b) { return Name(std::fmin(float(a), float(b))); } \
    __forceinline__ bool __heq(Name a, Name b) { return a == b; }                               \
    __forceinline__ bool __hne(Name a, Name b) { return a != b; }                               \
    __forceinline__ bool __hlt(Name a, Name b) { return a < b; }                                \
    __forceinline__ bool __hle(Name a, Name b) { return a <= b; }                               \
    __forceinline__ bool __hgt(Name a, Name b) { return a > b; }                                \
    __forceinline__ bool __hge(Name a, Name b) { return a >= b; }                               \
    __forceinline__ bool __hisnan(Name a) { return std::isnan(float(a)); }                      \
    __forceinline__ int __hisinf(Name a) {                                                      \
        return std::isinf(float(a)) ? (float(a) < 0 ? -1 : 1) : 0;                              \
    }                                                                                           \
    __forceinline__ Name##2 operator+(Name##2 a, Name##2 b) { return {a.x + b.x, a.y + b.y}; }  \
    __forceinline__ Name##2 operator-(Name##2 a, Name##2 b) { return {a.x - b.x, a.y - b.y}; }  \
    __forceinline__ Name##2 operator*(Name##2 a, Name##2 b) { return {a.x * b.x, a.y * b.y}; }  \
    __forceinline__ Name##2 operator/(Name##2 a, Name##2 b) { return {a.x / b.x, a.y / b.y}; }  \
    __forceinline__ Name##2 __hadd2(Name##2 a, Name##2 b) { return a + b; }                     \
    __forceinline__ Name##2 __hsub2(Name##2 a, Name##2 b) { return a - b; }                     \
    __forceinline__ Name##2 __hmul2(Name##2 a, Name##2 b) { return a * b; }                     \
    __forceinline__ float __low2float(Name##2 a) { return a.x; }                                \
    __forceinline__ float __high2float(Name##2 a) { return a.y; }

SIMT_HALF_TYPE(__half, half_bits, half_value)
SIMT_HALF_TYPE(__nv_bfloat16, bfloat16_bits, bfloat16_value)
#undef SIMT_HALF_TYPE

using half = __half;
using half2 = __half2;
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

// ---- Conversions under CUDA's names -------------------------------------------------------------

__forceinline__ __half __float2half(float x) { return __half(x); }
__forceinline__ __half __float2half_rn(float x) { return __half(x); }
__forceinline__ __half __double2half(double x) { return __half(x); }
__forceinline__ float __half2float(__half x) { return x; }
__forceinline__ __half __ushort_as_half(unsigned short bits) { return __half_raw{bits}; }
__forceinline__ unsigned short __half_as_ushort(__half x) { return __half_raw(x).x; }

__forceinline__ __half2 make_half2(__half x, __half y) { return {x, y}; }
__forceinline__ __half2 __halves2half2(__half x, __half y) { return {x, y}; }
__forceinline__ __half2 __half2half2(__half x) { return {x, x}; }
__forceinline__ __half2 __float2half2_rn(float x) { return {__half(x), __half(x)}; }
__forceinline__ __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
__forceinline__ __half2 __float22half2_rn(float2 v) { return {__half(v.x), __half(v.y)}; }
__forceinline__ float2 __half22float2(__half2 v) { return {v.x, v.y}; }
__forceinline__ __half __low2half(__half2 v) { return v.x; }
__forceinline__ __half __high2half(__half2 v) { return v.y; }

__forceinline__ __nv_bfloat16 __float2bfloat16(float x) { return __nv_bfloat16(x); }
__forceinline__ __nv_bfloat16 __float2bfloat16_rn(float x) { return __nv_bfloat16(x); }
__forceinline__ __nv_bfloat16 __double2bfloat16(double x) { return __nv_bfloat16(x); }
__forceinline__ float __bfloat162float(__nv_bfloat16 x) { return x; }
__forceinline__ __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
    return __nv_bfloat16_raw{bits};
}
__forceinline__ unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) {
    return __nv_bfloat16_raw(x).x;
}

__forceinline__ __nv_bfloat162 make_bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
__forceinline__ __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) {
    return {x, y};
}
__forceinline__ __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 x) { return {x, x}; }
__forceinline__ __nv_bfloat162 __float2bfloat162_rn(float x) { return {x, x}; }
__forceinline__ __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {x, y}; }
__forceinline__ __nv_bfloat162 __float22bfloat162_rn(float2 v) { return {v.x, v.y}; }
__forceinline__ float2 __bfloat1622float2(__nv_bfloat162 v) { return {v.x, v.y}; }
__forceinline__ __nv_bfloat16 __low2bfloat16(__nv_bfloat162 v) { return v.x; }
__forceinline__ __nv_bfloat16 __high2bfloat16(__nv_bfloat162 v) { return v.y; }
