// float <-> storage types, the same on both faces.
#pragma once

#include <string.h>

namespace simt {

SIMT_INLINE float to_float(float x) { return x; }
SIMT_INLINE float to_float(__half x) { return __half2float(x); }
SIMT_INLINE float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

namespace detail {

template <class T>
struct FromFloat;
template <>
struct FromFloat<float> {
    static SIMT_INLINE float convert(float x) { return x; }
};
template <>
struct FromFloat<__half> {
    static SIMT_INLINE __half convert(float x) { return __float2half_rn(x); }
    static SIMT_INLINE __half2 convert2(float x, float y) { return __floats2half2_rn(x, y); }
};
template <>
struct FromFloat<__nv_bfloat16> {
    static SIMT_INLINE __nv_bfloat16 convert(float x) { return __float2bfloat16_rn(x); }
    static SIMT_INLINE __nv_bfloat162 convert2(float x, float y) {
        return __floats2bfloat162_rn(x, y);
    }
};

}  // namespace detail

// Rounds to nearest, ties to even; NaN stays NaN.
template <class T>
SIMT_INLINE T from_float(float x) {
    return detail::FromFloat<T>::convert(x);
}

// Two floats as two elements of a register, the first in the low half: an operand of mma.
template <class T>
SIMT_INLINE uint32_t pack_floats(float low, float high) {
    const auto pair = detail::FromFloat<T>::convert2(low, high);
    static_assert(sizeof(pair) == sizeof(uint32_t), "elements of 16 bits");
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

// 2^x within 2 units in the last place, by the device's own instruction; what is below the normal
// range is 0. exp2f spends three more instructions on that.
#if defined(SIMT_DEVICE)
__device__ __forceinline__ float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#else
inline float exp2_approx(float x) {
    const float y = ::exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
}
#endif

}  // namespace simt
