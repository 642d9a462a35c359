// Matrix instructions of a warp: mma.sync, ldmatrix (8.0), stmatrix (9.0). All 32 lanes call together.
// Fragments are spread over the lanes as the PTX manual draws them.
#pragma once

#if !defined(__CUDACC__)
#include "simt/half.h"
#endif

namespace simt {

// mma_m16n8k16<T>(d, a, b, c), T = __half or __nv_bfloat16: D = A·B + C with A [16,16], B [16,8] of T,
// two to a register, and C, D [16,8] float. mma_m16n8k8_tf32: A [16,8], B [8,8], floats of which the
// low 13 bits do not count. The sum's order and rounding are the hardware's own; here it is exact but
// for one rounding at the end.
//
// ldmatrix<n>(r, row): n = 1, 2 or 4 matrices of 8x8 16-bit elements from shared memory. Lane 8m + i
// names row i of matrix m, 16 bytes aligned to as many; lane l gets elements 2(l % 4) and the next of
// row l / 4 of each matrix. ldmatrix_trans<n> transposes. stmatrix<n>(row, r) is the way back.

#if defined(SIMT_DEVICE)

template <class T>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2], const float (&c)[4]);
#define SIMT_MMA(T, name)                                                                          \
    template <>                                                                                    \
    __device__ __forceinline__ void mma_m16n8k16<T>(float (&d)[4], const uint32_t (&a)[4],         \
                                                    const uint32_t (&b)[2], const float (&c)[4]) { \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name                        \
                     ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"              \
                     : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])                              \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]),           \
                       "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));                                \
    }
SIMT_MMA(__half, "f16")
SIMT_MMA(__nv_bfloat16, "bf16")
#undef SIMT_MMA

__device__ __forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4],
                                                 const uint32_t (&b)[2], const float (&c)[4]) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%10,%11,%12,%13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]),
          "f"(c[2]), "f"(c[3]));
}

#define SIMT_LDMATRIX(name, trans)                                                                \
    template <int n>                                                                              \
    __device__ __forceinline__ void name(uint32_t (&r)[n], const void* row) {                     \
        static_assert(n == 1 || n == 2 || n == 4, "1, 2 or 4 matrices");                          \
        const unsigned shared = unsigned(__cvta_generic_to_shared(row));                          \
        if constexpr (n == 1)                                                                     \
            asm volatile("ldmatrix.sync.aligned.m8n8.x1" trans ".shared.b16 {%0}, [%1];"          \
                         : "=r"(r[0])                                                             \
                         : "r"(shared)                                                            \
                         : "memory");                                                             \
        if constexpr (n == 2)                                                                     \
            asm volatile("ldmatrix.sync.aligned.m8n8.x2" trans ".shared.b16 {%0,%1}, [%2];"       \
                         : "=r"(r[0]), "=r"(r[1])                                                 \
                         : "r"(shared)                                                            \
                         : "memory");                                                             \
        if constexpr (n == 4)                                                                     \
            asm volatile("ldmatrix.sync.aligned.m8n8.x4" trans ".shared.b16 {%0,%1,%2,%3}, [%4];" \
                         : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])                         \
                         : "r"(shared)                                                            \
                         : "memory");                                                             \
    }
SIMT_LDMATRIX(ldmatrix, "")
SIMT_LDMATRIX(ldmatrix_trans, ".trans")
#undef SIMT_LDMATRIX

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define SIMT_STMATRIX(name, trans)                                            \
    template <int n>                                                          \
    __device__ __forceinline__ void name(void* row, const uint32_t (&r)[n]) { \
        static_assert(n == 1 || n == 2 || n == 4, "1, 2 or 4 matrices");      \
        const unsigned shared = unsigned(__cvta_generic_to_shared(row));      \
        if constexpr (n == 1)                                                 \
            asm volatile("stmatrix.sync.aligned.m8n8.x1" trans                \
                         ".shared.b16 [%0], {%1};" ::"r"(shared),             \
                         "r"(r[0])                                            \
                         : "memory");                                         \
        if constexpr (n == 2)                                                 \
            asm volatile("stmatrix.sync.aligned.m8n8.x2" trans                \
                         ".shared.b16 [%0], {%1,%2};" ::"r"(shared),          \
                         "r"(r[0]), "r"(r[1])                                 \
                         : "memory");                                         \
        if constexpr (n == 4)                                                 \
            asm volatile("stmatrix.sync.aligned.m8n8.x4" trans                \
                         ".shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(shared),    \
                         "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])           \
                         : "memory");                                         \
    }
SIMT_STMATRIX(stmatrix, "")
SIMT_STMATRIX(stmatrix_trans, ".trans")
#undef SIMT_STMATRIX
#endif

#else

namespace detail {

extern const Collective kMmaHalf, kMmaBfloat16, kMmaTf32, kLdmatrix, kLdmatrixTrans, kStmatrix,
    kStmatrixTrans;

// What a lane brings to a matrix instruction; the result is stored through it.
struct MatrixOperands {
    const uint32_t* a;
    const uint32_t* b;
    const float* c;
    float* d;
};
struct MatrixRows {
    void* row;
    uint32_t* registers;
    int matrices;
};
void matrix(const Collective& kind, MatrixOperands operands, Site site);
void move_matrices(const Collective& kind, MatrixRows rows, bool store, Site site);

template <class T>
struct MmaOf;
template <>
struct MmaOf<__half> {
    static constexpr const Collective& kind = kMmaHalf;
};
template <>
struct MmaOf<__nv_bfloat16> {
    static constexpr const Collective& kind = kMmaBfloat16;
};

}  // namespace detail

template <class T>
inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                         const float (&c)[4], SIMT_CALL_SITE) {
    detail::matrix(detail::MmaOf<T>::kind, {a, b, c, d}, site);
}
inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             const float (&c)[4], SIMT_CALL_SITE) {
    detail::matrix(detail::kMmaTf32, {a, b, c, d}, site);
}

#define SIMT_MOVE_MATRICES(name, kind, store, ...)                                                 \
    template <int n>                                                                               \
    inline void name(__VA_ARGS__, SIMT_CALL_SITE) {                                                \
        static_assert(n == 1 || n == 2 || n == 4, "1, 2 or 4 matrices");                           \
        detail::move_matrices(detail::kind, {const_cast<void*>(row), const_cast<uint32_t*>(r), n}, \
                              store, site);                                                        \
    }
SIMT_MOVE_MATRICES(ldmatrix, kLdmatrix, false, uint32_t (&r)[n], const void* row)
SIMT_MOVE_MATRICES(ldmatrix_trans, kLdmatrixTrans, false, uint32_t (&r)[n], const void* row)
SIMT_MOVE_MATRICES(stmatrix, kStmatrix, true, void* row, const uint32_t (&r)[n])
SIMT_MOVE_MATRICES(stmatrix_trans, kStmatrixTrans, true, void* row, const uint32_t (&r)[n])
#undef SIMT_MOVE_MATRICES

#endif

}  // namespace simt
