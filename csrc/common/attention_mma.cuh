// Attention on tensor cores, as a warp does it: a tile of keys and values in shared memory is added to
// what the warp's rows have so far. Of the names of a Tile, these count here: T, kDim (columns of a
// row), kChunk (elements of 16 bytes), kMmaRows (row tiles of 16 of a warp), kKeys (that a warp adds
// at once).
#pragma once

#include <math.h>

#include "common/attention.cuh"

namespace yaie::attention {

constexpr float kSlack = 8.0f;  // log2 of how far P may pass 1

// Where 16 bytes of a row stand in a tile [rows,kDim]: the same chunk of eight rows in a row lies in
// different banks, so that ldmatrix reads them without conflict.
template <class Tile>
__device__ int chunk_offset(int row, int chunk) {
    return row * Tile::kDim + ((chunk ^ (row % 8)) * Tile::kChunk);
}

// 2 * k chunks further along a row, from chunk 0 or 1. The swizzle reaches over eight chunks: within
// them a step is an exclusive or, beyond them an addition, which costs no register.
__device__ inline int along(int offset, int k) { return (offset ^ (k % 4 * 16)) + k / 4 * 64; }

// What a warp has so far. In a fragment of an mma, a lane has rows lane / 4 and lane / 4 + 8, and
// columns 2 * (lane % 4) and the next.
template <class Tile>
struct Accumulator {
    float out[Tile::kMmaRows][Tile::kDim / 8][4];  // sum of P V
    float most[Tile::kMmaRows][2];   // what scores are taken relative to; -inf: no key yet
    float total[Tile::kMmaRows][2];  // sum of P, of this lane's columns

    __device__ void clear() {
#pragma unroll
        for (int m = 0; m < Tile::kMmaRows; ++m) {
#pragma unroll
            for (int n = 0; n < Tile::kDim / 8; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) out[m][n][e] = 0.0f;
            most[m][0] = most[m][1] = -INFINITY;
            total[m][0] = total[m][1] = 0.0f;
        }
    }
};

template <class Tile>
using Scores = float[Tile::kMmaRows][Tile::kKeys / 8][4];

// Q of 16 columns, as operand of the mma.
template <class Tile>
using QueryFragment = uint32_t[Tile::kMmaRows][4];

// Queries [rows,kDim] of a warp that stay in shared memory: every tile of keys reads them again.
template <class Tile>
struct SharedQueries {
    const typename Tile::T* rows;

    __device__ void read(QueryFragment<Tile>& a, int k) const {
        const int lane = threadIdx.x % 32;
        const int at = chunk_offset<Tile>(lane % 16, lane / 16);
#pragma unroll
        for (int m = 0; m < Tile::kMmaRows; ++m)
            simt::ldmatrix<4>(a[m], rows + along(at, k) + m * 16 * Tile::kDim);
    }
};

// Queries in registers.
template <class Tile>
struct HeldQueries {
    QueryFragment<Tile> fragments[Tile::kDim / 16];

    __device__ explicit HeldQueries(const SharedQueries<Tile>& shared) {
#pragma unroll
        for (int k = 0; k < Tile::kDim / 16; ++k) shared.read(fragments[k], k);
    }
    __device__ void read(QueryFragment<Tile>& a, int k) const {
#pragma unroll
        for (int m = 0; m < Tile::kMmaRows; ++m)
#pragma unroll
            for (int i = 0; i < 4; ++i) a[m][i] = fragments[k][m][i];
    }
};

// scores [rows,kKeys] = Q [rows,kDim] K^T [kKeys,kDim]
template <class Tile, class Queries>
__device__ void multiply_keys(Scores<Tile>& score, const Queries& queries,
                              const typename Tile::T* k_tile) {
    using T = typename Tile::T;
    const int lane = threadIdx.x % 32;
    const int k_at = chunk_offset<Tile>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
    for (int m = 0; m < Tile::kMmaRows; ++m)
#pragma unroll
        for (int n = 0; n < Tile::kKeys / 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) score[m][n][e] = 0.0f;
#pragma unroll
    for (int k = 0; k < Tile::kDim / 16; ++k) {
        QueryFragment<Tile> a;
        queries.read(a, k);
#pragma unroll
        for (int n = 0; n < Tile::kKeys / 16; ++n) {
            uint32_t b[4];  // 16 keys
            simt::ldmatrix<4>(b, k_tile + along(k_at, k) + n * 16 * Tile::kDim);
#pragma unroll
            for (int m = 0; m < Tile::kMmaRows; ++m) {
                simt::mma_m16n8k16<T>(score[m][2 * n], a[m], {b[0], b[1]}, score[m][2 * n]);
                simt::mma_m16n8k16<T>(score[m][2 * n + 1], a[m], {b[2], b[3]}, score[m][2 * n + 1]);
            }
        }
    }
}

// Scores in units of log 2, capped: where the factor in the exponent cannot do it alone.
template <class Tile>
__device__ void cap_scores(Scores<Tile>& score, const Options& options) {
#pragma unroll
    for (int m = 0; m < Tile::kMmaRows; ++m)
#pragma unroll
        for (int n = 0; n < Tile::kKeys / 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e)
                score[m][n][e] = capped(options.scale * score[m][n][e], options.softcap) * kLog2E;
}

// The same where registers allow it. tanhf branches, so that a lane's scores go through it one after
// the other, which is most of a decode tile's time; this form has no branch. Where the score is small
// beside the softcap its difference would cancel, and a series stands in its place.
template <class Tile>
__device__ void cap_scores_at_once(Scores<Tile>& score, const Options& options) {
    const bool capped = options.softcap > 0.0f;
    const float most = 0x1.fp127f;  // in infinity's place, which would make NaN of a score of 0
    const float squeeze = fmaxf(-most, fminf(most, 2 * kLog2E * options.scale / options.softcap));
    const float cap = fminf(most, options.softcap * kLog2E), factor = options.scale * kLog2E;
#pragma unroll
    for (int m = 0; m < Tile::kMmaRows; ++m)
#pragma unroll
        for (int n = 0; n < Tile::kKeys / 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                float& s = score[m][n][e];
                const float x = s * squeeze;  // tanh(x ln 2 / 2) = (1 - 2^-x) / (1 + 2^-x)
                const float y = simt::exp2_approx(-fabsf(x));
                const float bent = copysignf(cap * __fdividef(1.0f - y, 1.0f + y), x);
                const float z = x * (kLn2 / 2), w = z * z;  // tanh z = z - z^3 / 3 + ...
                const float series =
                    fmaf(w, fmaf(w, fmaf(w, -17.0f / 315, 2.0f / 15), -1.0f / 3), 1.0f);
                const float plain = s * factor;
                s = !capped ? plain : fabsf(z) < 0.125f ? plain * series : bent;
            }
}

// Scores of keys that a row does not keep become -inf; `kept` are those of the warp's rows.
template <class Tile>
__device__ void mask_scores(Scores<Tile>& score, const Keys* kept, int tile_key) {
    const int lane = threadIdx.x % 32, own_key = tile_key + lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < Tile::kMmaRows; ++m)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const Keys keys = kept[m * 16 + i * 8 + lane / 4];
            const int first = keys.first - own_key, last = keys.last - own_key;
#pragma unroll
            for (int n = 0; n < Tile::kKeys / 8; ++n)
#pragma unroll
                for (int e = 0; e < 2; ++e)
                    if (n * 8 + e < first || n * 8 + e >= last) score[m][n][2 * i + e] = -INFINITY;
        }
}

// Raises `most` of the rows whose scores have grown beyond the slack, and what was added up before
// follows. `factor` takes scores to units of log 2.
template <class Tile>
__device__ void raise_maxima(Accumulator<Tile>& acc, const Scores<Tile>& score, float factor) {
    float most[Tile::kMmaRows][2];
    bool grown = false;
#pragma unroll
    for (int m = 0; m < Tile::kMmaRows; ++m)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            float x = fmaxf(score[m][0][2 * i], score[m][0][2 * i + 1]);
#pragma unroll
            for (int n = 1; n < Tile::kKeys / 8; ++n)
                x = fmaxf(x, fmaxf(score[m][n][2 * i], score[m][n][2 * i + 1]));
            x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
            x = fmaxf(x, __shfl_xor_sync(~0u, x, 2));
            // -inf - -inf is NaN, and no growth: the row has no key yet
            const bool grows = (x - acc.most[m][i]) * factor > kSlack;
            most[m][i] = grows ? x : acc.most[m][i];
            grown |= grows;
        }
    if (!__any_sync(~0u, grown)) return;
#pragma unroll
    for (int m = 0; m < Tile::kMmaRows; ++m)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const float old = acc.most[m][i] == most[m][i]
                                  ? 1.0f
                                  : simt::exp2_approx((acc.most[m][i] - most[m][i]) * factor);
            acc.most[m][i] = most[m][i];
            acc.total[m][i] *= old;
#pragma unroll
            for (int n = 0; n < Tile::kDim / 8; ++n) {
                acc.out[m][n][2 * i] *= old;
                acc.out[m][n][2 * i + 1] *= old;
            }
        }
}

// Weights P of 16 keys in place of their scores, added to the totals; a: P as operand of the mma.
template <class Tile>
__device__ void weigh(Accumulator<Tile>& acc, Scores<Tile>& score, const float (&shift)[2], int m,
                      int step, float factor, uint32_t (&a)[4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            float (&s)[4] = score[m][2 * step + half];
            const float x = simt::exp2_approx(fmaf(s[2 * i], factor, -shift[i]));
            const float y = simt::exp2_approx(fmaf(s[2 * i + 1], factor, -shift[i]));
            acc.total[m][i] += x + y;
            a[2 * half + i] = simt::pack_floats<typename Tile::T>(x, y);
        }
}

// out [rows,kDim] += P [rows,kKeys] V [kKeys,kDim], 16 keys at a time
template <class Tile>
__device__ void add_values(Accumulator<Tile>& acc, Scores<Tile>& score,
                           const typename Tile::T* v_tile, float factor) {
    using T = typename Tile::T;
    const int lane = threadIdx.x % 32;
    const int v_at = chunk_offset<Tile>(lane % 16, lane / 16);
    float shift[Tile::kMmaRows][2];
#pragma unroll
    for (int m = 0; m < Tile::kMmaRows; ++m)
#pragma unroll
        for (int i = 0; i < 2; ++i)
            shift[m][i] = acc.most[m][i] == -INFINITY ? 0.0f : acc.most[m][i] * factor;
#pragma unroll
    for (int step = 0; step < Tile::kKeys / 16; ++step) {
        uint32_t a[Tile::kMmaRows][4];
#pragma unroll
        for (int m = 0; m < Tile::kMmaRows; ++m)
            weigh<Tile>(acc, score, shift[m], m, step, factor, a[m]);
#pragma unroll
        for (int d = 0; d < Tile::kDim / 16; ++d) {
            uint32_t b[4];
            simt::ldmatrix_trans<4>(b, v_tile + along(v_at, d) + step * 16 * Tile::kDim);
#pragma unroll
            for (int m = 0; m < Tile::kMmaRows; ++m) {
                float (&even)[4] = acc.out[m][2 * d];
                float (&odd)[4] = acc.out[m][2 * d + 1];
                simt::mma_m16n8k16<T>(even, a[m], {b[0], b[1]}, even);
                simt::mma_m16n8k16<T>(odd, a[m], {b[2], b[3]}, odd);
            }
        }
    }
}

}  // namespace yaie::attention
