// CUDA's qualifiers, vector types and built-in variables for a host compiler.
#pragma once

#include <cstddef>
#include <cstdint>

// ---- Qualifiers ---------------------------------------------------------------------------------
// `__noinline__` is left alone on purpose: libstdc++ spells an attribute that way.

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
// One copy per OS thread is one copy per running block. It has no poison and no redzones, so the
// kernels of this house write SIMT_SHARED instead.
#define __shared__ thread_local

#define SIMT_NOINLINE __attribute__((noinline))

// ---- Vector types, with CUDA's alignments -------------------------------------------------------

#define SIMT_VECTOR_TYPES(prefix, T, align1, align2, align4)               \
    struct alignas(align1) prefix##1 { T x; };                             \
    struct alignas(align2) prefix##2 { T x, y; };                          \
    struct alignas(align1) prefix##3 { T x, y, z; };                       \
    struct alignas(align4) prefix##4 { T x, y, z, w; };                    \
    inline prefix##1 make_##prefix##1(T x) { return {x}; }                 \
    inline prefix##2 make_##prefix##2(T x, T y) { return {x, y}; }         \
    inline prefix##3 make_##prefix##3(T x, T y, T z) { return {x, y, z}; } \
    inline prefix##4 make_##prefix##4(T x, T y, T z, T w) { return {x, y, z, w}; }

SIMT_VECTOR_TYPES(char, signed char, 1, 2, 4)
SIMT_VECTOR_TYPES(uchar, unsigned char, 1, 2, 4)
SIMT_VECTOR_TYPES(short, short, 2, 4, 8)
SIMT_VECTOR_TYPES(ushort, unsigned short, 2, 4, 8)
SIMT_VECTOR_TYPES(int, int, 4, 8, 16)
SIMT_VECTOR_TYPES(uint, unsigned int, 4, 8, 16)
SIMT_VECTOR_TYPES(long, long, 8, 16, 16)
SIMT_VECTOR_TYPES(ulong, unsigned long, 8, 16, 16)
SIMT_VECTOR_TYPES(longlong, long long, 8, 16, 16)
SIMT_VECTOR_TYPES(ulonglong, unsigned long long, 8, 16, 16)
SIMT_VECTOR_TYPES(float, float, 4, 8, 16)
SIMT_VECTOR_TYPES(double, double, 8, 16, 16)

#undef SIMT_VECTOR_TYPES

struct dim3 {
    unsigned int x, y, z;

    constexpr dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
    constexpr operator uint3() const { return uint3{x, y, z}; }
};

// ---- Built-in variables -------------------------------------------------------------------------

#include "simt/runtime.h"

constexpr int warpSize = 32;

#if defined(SIMT_CHECKED)
#define threadIdx (::simt::detail::thread_index())
#define blockIdx (::simt::detail::block_index())
#define blockDim (::simt::detail::block_dim())
#define gridDim (::simt::detail::grid_dim())
#else
#define threadIdx (::simt::detail::current->thread_index)
#define blockIdx (::simt::detail::current->block->block_index)
#define blockDim (::simt::detail::current->block->block_dim)
#define gridDim (::simt::detail::current->block->grid_dim)
#endif
