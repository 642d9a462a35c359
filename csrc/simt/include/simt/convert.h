// float <-> storage types, the same on both faces.
#pragma once

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
};
template <>
struct FromFloat<__nv_bfloat16> {
    static SIMT_INLINE __nv_bfloat16 convert(float x) { return __float2bfloat16_rn(x); }
};

}  // namespace detail

// Rounds to nearest, ties to even; NaN stays NaN.
template <class T>
SIMT_INLINE T from_float(float x) {
    return detail::FromFloat<T>::convert(x);
}

}  // namespace simt
