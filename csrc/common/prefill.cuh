// Attention of many queries on tensor cores, for keys that lie packed or in pages: varlen_attention
// `mma` and paged_attention `mma_prefill` are this kernel over two sources of keys.
//
// The query heads of a KV head share its keys, so a row of work is a (query, head of the group) and
// a block takes kRows of them. It walks over the tiles of keys that any of its rows keeps; a warp
// leaves out those that none of its own keeps, and masks only where the edge of a mask runs through.
//
//            keys ->                     causal, group of 2, kRows = 8 (128 in truth)
//   rows   |  0 ..|  .. |  .. |
//   q0 h0  | xxxx | x           x: kept        A block's first tiles are kept by all of its rows
//   q0 h1  | xxxx | x                          and need no mask. Tiles beyond the last key that
//   q1 h0  | xxxx | xx                         its last row keeps are never loaded.
//   q1 h1  | xxxx | xx
//
// Of a row tile, S = Q K^T stays in registers, P = exp(S - m) takes its place as the operand of
// P V (the accumulator of one mma is laid out as the operand of the next), and O never leaves the
// registers before the end. Each warp has 32 rows (16 where D > 128): a fragment of K or V that
// ldmatrix brings is used by two mma, or shared memory would be the limit. Copies run kStages - 1
// tiles ahead, with one barrier a tile.
//
// Steps that a warp spares: the running maximum m may lag behind the true one by 2^kSlack, which P
// and the sums bear easily, so O is rescaled a few times a row, not once a tile; scale and log2(e)
// are one factor of the exponent's fused multiply-add; 1 / sum is multiplied in at the end.
#pragma once

#include <math.h>

#include "common/row_tile.cuh"

namespace yaie::attention {

// Sizes of the kernel for D <= kColumns; the columns beyond D are zero. kBlocks: of an SM, that
// registers must allow. A tile for other instructions has the same names.
template <class Element, int kColumns, int kWarpCount, int kMmaCount, int kKeyCount,
          int kBlockCount>
struct PrefillTile {
    using T = Element;
    static constexpr int kDim = kColumns;
    static constexpr int kWarps = kWarpCount;
    static constexpr int kMmaRows = kMmaCount;  // mma tiles of 16 rows, of a warp
    static constexpr int kKeys = kKeyCount;
    static constexpr int kBlocks = kBlockCount;
    static constexpr int kStages = 2;
    static constexpr int kWarpRows = 16 * kMmaRows;
    static constexpr int kRows = kWarps * kWarpRows;
    static constexpr int kThreads = 32 * kWarps;
    static constexpr int kChunk = 8;  // elements of 16 bytes, which one copy moves
    static constexpr int kChunks = kDim / kChunk;
    static constexpr int kRowsAtOnce = kThreads / kChunks;  // that all threads copy together
    static constexpr int kTile = kKeys * kDim;              // elements of K or of V in a stage
    static constexpr int kQueryBytes = kRows * kDim * sizeof(T);
    static constexpr int kStageBytes = kStages * 2 * kTile * sizeof(T);
    static constexpr int kSharedBytes = kQueryBytes + kStageBytes;
    static_assert(kRowsAtOnce % 8 == 0, "the rows that a thread copies swizzle alike");
    static_assert(kThreads >= kRows && kThreads >= kKeys, "a thread a row, and a thread a key");
};

constexpr float kSlack = 8.0f;  // log2 of how far P may pass 1

struct PrefillParams {
    const void* q;
    int64_t q_stride, q_head_stride;
    int heads, group;
    bool wide_queries;  // rows of q start at multiples of 16 bytes
    void* out;          // T [T,Hq,D]
    float* lse;         // [T,Hq]
};

// ---- Shared memory ------------------------------------------------------------------------------

// Where 16 bytes of a row stand in a tile [rows,kDim]: the same chunk of eight rows in a row lies in
// different banks, so that ldmatrix reads them without conflict.
template <class Tile>
__device__ int chunk_offset(int row, int chunk) {
    return row * Tile::kDim + ((chunk ^ (row % 8)) * Tile::kChunk);
}

// 2 * k chunks further along a row, from chunk 0 or 1. The swizzle reaches over eight chunks: within
// them a step is an exclusive or, beyond them an addition, which costs no register.
__device__ inline int along(int offset, int k) { return (offset ^ (k % 4 * 16)) + k / 4 * 64; }

// Copies the rows of a tile [kRows,kDim] of Q; what is no row or column is zero.
template <class Tile>
__device__ void copy_queries(typename Tile::T* q_tile, const PrefillParams& p, const RowTile& t,
                             int dim) {
    using T = typename Tile::T;
    const int chunk = threadIdx.x % Tile::kChunks, column = chunk * Tile::kChunk;
    const RowCursor step(Tile::kRowsAtOnce, p.group);
    RowCursor at(t.first_row + int(threadIdx.x) / Tile::kChunks, p.group);
#pragma unroll 4
    for (int row = threadIdx.x / Tile::kChunks; row < Tile::kRows; row += Tile::kRowsAtOnce) {
        const bool wanted = row < t.rows && column < dim;
        const int64_t token = t.first_query + at.query, head = t.head * p.group + at.member;
        const T* from = static_cast<const T*>(p.q);
        if (wanted) from += token * p.q_stride + head * p.q_head_stride + column;
        T* to = q_tile + chunk_offset<Tile>(row, chunk);
        if (p.wide_queries)
            simt::cp_async<16>(to, from, wanted);
        else
            for (int i = 0; i < Tile::kChunk; ++i)
                to[i] = wanted ? from[i] : simt::from_float<T>(0.0f);
        at.advance(step, p.group);
    }
}

// Where the rows of key tiles lie: row `token` of an array that starts at k or v.
template <class Tile, class KV>
struct KeyRows;

// Packed keys follow one another.
template <class Tile>
struct KeyRows<Tile, Packed> {
    using T = typename Tile::T;
    const T** starts;  // of the tile's first key, in k and in v; shared, to spare registers

    __device__ KeyRows(const Packed& kv, const RowTile& t) {
        SIMT_SHARED(const T*, shared, [2]);
        starts = shared;
        if (threadIdx.x > 0) return;
        const int64_t first = kv.kv_indptr[t.sequence] + int64_t(t.first_key);
        shared[0] = static_cast<const T*>(kv.k) + first * kv.k_stride + t.head * kv.k_head_stride;
        shared[1] = static_cast<const T*>(kv.v) + first * kv.v_stride + t.head * kv.v_head_stride;
    }
    __device__ void fetch(const Packed&, const RowTile&, int) {}
    __device__ void publish(int) const {}
    __device__ int token(int tile, int key) const { return tile * Tile::kKeys + key; }
    __device__ const T* k(const Packed&) const { return starts[0]; }
    __device__ const T* v(const Packed&) const { return starts[1]; }
    // The launcher has made sure that these fit; one wide multiplication finds a row.
    __device__ int k_stride(const Packed& kv) const { return static_cast<int>(kv.k_stride); }
    __device__ int v_stride(const Packed& kv) const { return static_cast<int>(kv.v_stride); }
};

// Keys in pages: a thread a key looks its slot up a tile before the copies want it, and leaves it in
// shared memory for all who copy a part of that row.
template <class Tile>
struct KeyRows<Tile, Paged> {
    using T = typename Tile::T;
    int64_t* slots;  // [kStages,kKeys]
    int64_t held;
    int64_t head;  // its offset in a row of the cache

    __device__ KeyRows(const Paged& kv, const RowTile& t)
        : held(0), head(int64_t(t.head) * kv.dim) {
        SIMT_SHARED(int64_t, shared, [Tile::kStages * Tile::kKeys]);
        slots = shared;
    }
    __device__ void fetch(const Paged& kv, const RowTile& t, int tile) {
        const int key = tile * Tile::kKeys + threadIdx.x;
        if (threadIdx.x < Tile::kKeys && key < t.keys)
            held = kv.slot(t.sequence, t.first_key + key);
    }
    __device__ void publish(int tile) const {
        if (threadIdx.x < Tile::kKeys)
            slots[tile % Tile::kStages * Tile::kKeys + threadIdx.x] = held;
    }
    __device__ int64_t token(int tile, int key) const {
        return slots[tile % Tile::kStages * Tile::kKeys + key];
    }
    __device__ const T* k(const Paged& kv) const { return static_cast<const T*>(kv.k) + head; }
    __device__ const T* v(const Paged& kv) const { return static_cast<const T*>(kv.v) + head; }
    __device__ int64_t k_stride(const Paged& kv) const { return int64_t(kv.kv_heads) * kv.dim; }
    __device__ int64_t v_stride(const Paged& kv) const { return k_stride(kv); }
};

// Copies tile `tile` of K and of V, [kKeys,kDim] each, of `keys` keys in all; the rows behind the
// last key, and the columns beyond D, arrive as zeros, and their memory is not read.
template <class Tile, class KV>
__device__ void copy_keys(typename Tile::T* stage, const KV& kv, const KeyRows<Tile, KV>& rows,
                          int tile, int keys) {
    using T = typename Tile::T;
    const int chunk = threadIdx.x % Tile::kChunks, first = threadIdx.x / Tile::kChunks;
    const int here = chunk * Tile::kChunk < kv.dim ? keys - tile * Tile::kKeys : 0;
    const T* k = rows.k(kv) + chunk * Tile::kChunk;
    const T* v = rows.v(kv) + chunk * Tile::kChunk;
#pragma unroll
    for (int key = 0; key < Tile::kKeys; key += Tile::kRowsAtOnce) {
        const bool wanted = key + first < here;
        const auto token = wanted ? rows.token(tile, key + first) : 0;
        T* to = stage + chunk_offset<Tile>(first, chunk) + key * Tile::kDim;
        simt::cp_async<16>(to, k + int64_t(token) * rows.k_stride(kv), wanted);
        simt::cp_async<16>(to + Tile::kTile, v + int64_t(token) * rows.v_stride(kv), wanted);
    }
}

// ---- Arithmetic of a warp -----------------------------------------------------------------------

// The rows of a warp, and which keys they keep.
struct WarpRows {
    int count;  // may be 0
    Keys any;   // kept by one of them at least
    Keys all;   // kept by all of them
};

__device__ inline WarpRows rows_of_warp(int first, int most, const RowTile& t, int group,
                                        const Options& options) {
    const int count = max(0, min(most, t.rows - first));
    if (count == 0) return {0, {0, 0}, {0, 0}};
    const Keys top = t.kept(first, group, options);
    const Keys bottom = t.kept(first + count - 1, group, options);
    return {count, {top.first, bottom.last}, {bottom.first, top.last}};
}

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

// scores [rows,kKeys] = Q [rows,kDim] K^T [kKeys,kDim]
template <class Tile>
__device__ void multiply_keys(Scores<Tile>& score, const typename Tile::T* q_rows,
                              const typename Tile::T* k_tile) {
    using T = typename Tile::T;
    const int lane = threadIdx.x % 32;
    const int q_at = chunk_offset<Tile>(lane % 16, lane / 16);
    const int k_at = chunk_offset<Tile>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
    for (int m = 0; m < Tile::kMmaRows; ++m)
#pragma unroll
        for (int n = 0; n < Tile::kKeys / 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) score[m][n][e] = 0.0f;
#pragma unroll
    for (int k = 0; k < Tile::kDim / 16; ++k) {
        uint32_t a[Tile::kMmaRows][4];
#pragma unroll
        for (int m = 0; m < Tile::kMmaRows; ++m)
            simt::ldmatrix<4>(a[m], q_rows + along(q_at, k) + m * 16 * Tile::kDim);
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

// Normalises the rows of a warp and writes them: out goes through the warp's part of the query tile,
// so that whole rows are stored 16 bytes a lane.
template <class Tile>
__device__ void write_rows(Accumulator<Tile>& acc, typename Tile::T* rows, int first, int count,
                           const RowTile& t, const PrefillParams& p, int dim, float factor) {
    using T = typename Tile::T;
    const int lane = threadIdx.x % 32;
    const int64_t first_head = int64_t(t.first_query) * p.heads + t.head * p.group;
    __syncwarp();  // the queries have been read
#pragma unroll
    for (int m = 0; m < Tile::kMmaRows; ++m)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            float total = acc.total[m][i];
            total += __shfl_xor_sync(~0u, total, 1);
            total += __shfl_xor_sync(~0u, total, 2);
            const bool empty = acc.most[m][i] == -INFINITY && total == 0.0f;
            const float share = empty ? 0.0f : 1.0f / total;
            const int row = m * 16 + i * 8 + lane / 4;
#pragma unroll
            for (int n = 0; n < Tile::kDim / 8; ++n)
                *reinterpret_cast<uint32_t*>(rows + chunk_offset<Tile>(row, n) + lane % 4 * 2) =
                    simt::pack_floats<T>(acc.out[m][n][2 * i] * share,
                                         acc.out[m][n][2 * i + 1] * share);
            if (lane % 4 == 0 && row < count) {
                const RowCursor at(t.first_row + first + row, p.group);
                p.lse[first_head + int64_t(at.query) * p.heads + at.member] =
                    empty ? -INFINITY : acc.most[m][i] * factor * kLn2 + logf(total);
            }
        }
    __syncwarp();
    constexpr int kAtOnce = 32 / Tile::kChunks;  // rows
    const int chunk = lane % Tile::kChunks;
    const RowCursor step(kAtOnce, p.group);
    RowCursor at(t.first_row + first + lane / Tile::kChunks, p.group);
    for (int row = lane / Tile::kChunks; row < count; row += kAtOnce) {
        if (chunk * Tile::kChunk < dim) {
            const int64_t to = first_head + int64_t(at.query) * p.heads + at.member;
            T* out = static_cast<T*>(p.out) + to * dim + chunk * Tile::kChunk;
            *reinterpret_cast<uint4*>(out) =
                *reinterpret_cast<const uint4*>(rows + chunk_offset<Tile>(row, chunk));
        }
        at.advance(step, p.group);
    }
}

// ---- The kernel ---------------------------------------------------------------------------------

template <class Tile, class KV>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    prefill(PrefillParams p, KV kv, Options options) {
    using T = typename Tile::T;
    T* q_tile = simt::dynamic_shared<T>();                   // [kRows,kDim]
    T* stages = simt::dynamic_shared<T>(Tile::kQueryBytes);  // [kStages,2,kKeys,kDim]

    // What the loop needs once a turn or less is in shared memory: there is no register to spare.
    SIMT_SHARED(RowTile, shared_tile, );
    SIMT_SHARED(Keys, kept, [Tile::kRows]);
    SIMT_SHARED(WarpRows, warp_rows, [Tile::kWarps]);
    const int warp = threadIdx.x / 32, first = warp * Tile::kWarpRows;
    const RowTile t = find_row_tile<Tile>(kv, p.group, options);
    if (t.rows == 0) return;
    if (threadIdx.x == 0) shared_tile = t;
    if (threadIdx.x % 32 == 0)
        warp_rows[warp] = rows_of_warp(first, Tile::kWarpRows, t, p.group, options);
    if (threadIdx.x < Tile::kRows)
        kept[threadIdx.x] =
            int(threadIdx.x) < t.rows ? t.kept(threadIdx.x, p.group, options) : Keys{0, 0};

    // pass 1: fill all stages but one
    KeyRows<Tile, KV> rows(kv, t);
    if (t.keys > 0) copy_queries<Tile>(q_tile, p, t, kv.dim);
    for (int i = 0; i < Tile::kStages; ++i) {
        rows.fetch(kv, t, i);
        rows.publish(i);
    }
    __syncthreads();                     // what went to shared memory is there for all
    const int& keys = shared_tile.keys;  // loaded anew after each barrier
    const auto copy_tile = [&](int i) {
        if (i * Tile::kKeys < keys)
            copy_keys<Tile>(stages + i % Tile::kStages * 2 * Tile::kTile, kv, rows, i, keys);
        simt::cp_async_commit();  // a group for every tile, there or not: waiting counts them
    };
    for (int i = 0; i < Tile::kStages - 1; ++i) copy_tile(i);

    // pass 2: tile by tile
    const bool by_factor = options.softcap <= 0.0f && options.scale > 0.0f;
    const float factor = by_factor ? options.scale * kLog2E : 1.0f;
    Accumulator<Tile> acc;
    acc.clear();
    for (int i = 0; i * Tile::kKeys < keys; ++i) {
        simt::cp_async_wait<Tile::kStages - 2>();
        __syncthreads();  // tile i is there for all, and tile i - 1 is no longer read
        copy_tile(i + Tile::kStages - 1);
        rows.fetch(kv, shared_tile, i + Tile::kStages);
        const int key = i * Tile::kKeys, end = key + Tile::kKeys;
        const WarpRows& w = warp_rows[warp];
        if (key < w.any.last && end > w.any.first) {
            const bool masked = key < w.all.first || end > w.all.last;
            const T* stage = stages + i % Tile::kStages * 2 * Tile::kTile;
            Scores<Tile> score;
            multiply_keys<Tile>(score, q_tile + first * Tile::kDim, stage);
            if (!by_factor) cap_scores<Tile>(score, options);
            if (masked) mask_scores<Tile>(score, kept + first, key);
            raise_maxima<Tile>(acc, score, factor);
            add_values<Tile>(acc, score, stage + Tile::kTile, factor);
        }
        rows.publish(i + Tile::kStages);
    }
    if (first < shared_tile.rows)
        write_rows<Tile>(acc, q_tile + first * Tile::kDim, first, warp_rows[warp].count,
                         shared_tile, p, kv.dim, factor);
}

}  // namespace yaie::attention
