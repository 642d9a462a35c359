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
// registers before the end. Each warp has 32 rows: a fragment of K or V that ldmatrix brings is used
// by two mma, or shared memory would be the limit. Where D > 128, registers allow 16 rows, and it is
// the limit: there Q is held in registers. Copies run kStages - 1 tiles ahead, with one barrier a
// tile, so a tile has as many keys as registers and shared memory allow, but for short sequences
// (prefill.h chooses).
//
// Steps that a warp spares: the running maximum m may lag behind the true one by 2^kSlack, which P
// and the sums bear easily, so O is rescaled a few times a row, not once a tile; scale and log2(e)
// are one factor of the exponent's fused multiply-add; 1 / sum is multiplied in at the end.
#pragma once

#include <math.h>

#include <algorithm>
#include <type_traits>

#include "common/attention_mma.cuh"
#include "common/row_tile.cuh"

namespace yaie::attention {

// Sizes of the kernel for D <= kColumns; the columns beyond D are zero. kBlocks: of an SM, that
// registers must allow. kHoldsQueries: they stay in registers, and their tile is the memory of the
// last stage until they are there. A tile for other instructions has the same names.
template <class Element, int kColumns, int kWarpCount, int kMmaCount, int kKeyCount,
          int kBlockCount, bool kHolds>
struct PrefillTile {
    using T = Element;
    static constexpr int kDim = kColumns;
    static constexpr int kWarps = kWarpCount;
    static constexpr int kMmaRows = kMmaCount;  // mma tiles of 16 rows, of a warp
    static constexpr int kKeys = kKeyCount;
    static constexpr int kBlocks = kBlockCount;
    static constexpr int kStages = 2;
    static constexpr bool kHoldsQueries = kHolds;
    static constexpr int kWarpRows = 16 * kMmaRows;
    static constexpr int kRows = kWarps * kWarpRows;
    static constexpr int kThreads = 32 * kWarps;
    static constexpr int kChunk = 8;  // elements of 16 bytes, which one copy moves
    static constexpr int kChunks = kDim / kChunk;
    static constexpr int kRowsAtOnce = kThreads / kChunks;  // that all threads copy together
    static constexpr int kTile = kKeys * kDim;              // elements of K or of V in a stage
    static constexpr int kQueryBytes = kRows * kDim * sizeof(T);
    static constexpr int kStageBytes = 2 * kTile * sizeof(T);
    static constexpr int kQueryOffset = (kStages - kHoldsQueries) * kStageBytes;
    static constexpr int kSharedBytes = std::max(kStages * kStageBytes, kQueryOffset + kQueryBytes);
    static_assert(kRowsAtOnce % 8 == 0, "the rows that a thread copies swizzle alike");
    static_assert(kRows % kRowsAtOnce == 0 && kKeys % kRowsAtOnce == 0, "copies fill a tile");
    static_assert(kKeys % 16 == 0, "an mma takes 16 keys");
    static_assert(kThreads >= kRows && kThreads >= kKeys, "a thread a row, and a thread a key");
};

struct PrefillParams {
    const void* q;
    int64_t q_stride, q_head_stride;
    int heads, group;
    bool wide_queries;  // rows of q start at multiples of 16 bytes
    void* out;          // T [T,Hq,D]
    float* lse;         // [T,Hq]
};

// ---- Shared memory ------------------------------------------------------------------------------

// Rows of q as a tile of them takes them: of a sequence and a KV head, from `start` on.
template <class T>
struct QueryRows {
    const T* start;
    int64_t stride, head_stride;
    int group, dim;
    bool wide;  // they start at multiples of 16 bytes
};

// Copies `count` rows of Q from `first_row` on to a tile [kRows,kDim]; what is no row or column is
// zero. Not inlined: it would take registers from the loop over keys.
template <class Tile>
__device__ SIMT_NOINLINE void copy_queries(typename Tile::T* q_tile, QueryRows<typename Tile::T> q,
                                           int first_row, int count) {
    using T = typename Tile::T;
    const int chunk = threadIdx.x % Tile::kChunks, column = chunk * Tile::kChunk;
    const int first = threadIdx.x / Tile::kChunks, here = column < q.dim ? count : 0;
    const RowCursor step(Tile::kRowsAtOnce, q.group);
    RowCursor at(first_row + first, q.group);
    const T* from = q.start + at.query * q.stride + at.member * q.head_stride + column;
    const int64_t onward = step.query * q.stride + step.member * q.head_stride;
    const int64_t to_next_query = q.stride - q.group * q.head_stride;
    q_tile += chunk_offset<Tile>(first, chunk);
#pragma unroll 4
    for (int row = 0; row < Tile::kRows; row += Tile::kRowsAtOnce) {
        const bool wanted = row + first < here;
        const T* own = wanted ? from : q.start;
        T* to = q_tile + row * Tile::kDim;
        if (q.wide)
            simt::cp_async<16>(to, own, wanted);
        else
            for (int i = 0; i < Tile::kChunk; ++i)
                to[i] = wanted ? own[i] : simt::from_float<T>(0.0f);
        from += onward + (at.advance(step, q.group) ? to_next_query : 0);
    }
}

// Where a row of K and one of V lie.
template <class T>
struct KeyRow {
    const T *k, *v;
};

// Where the rows of key tiles lie. A Walk leads a thread over those that it copies of a tile: to the
// row `key` behind its first one. What is not wanted is not read.
template <class Tile, class KV>
struct KeyRows;

// Packed keys follow one another. The strides have 64 bits: a product for the first row alone, and a
// sum for every other, are what the registers have room for.
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
    __device__ void publish(const Packed&, int) const {}

    struct Walk {
        KeyRow<T> first;

        __device__ KeyRow<T> row(const Packed& kv, int key, bool) const {
            return {first.k + key * kv.k_stride, first.v + key * kv.v_stride};
        }
    };
    __device__ Walk walk(const Packed& kv, int tile, int first, int column) const {
        const int64_t token = tile * Tile::kKeys + first;
        return {
            {starts[0] + column + token * kv.k_stride, starts[1] + column + token * kv.v_stride}};
    }
};

// Keys in pages: a thread a key looks its page up a tile before the copies want it, and then leaves
// the slot in shared memory for all who copy a part of that row. Nothing is computed with a page
// before: a warp would stop there until it has come.
template <class Tile>
struct KeyRows<Tile, Paged> {
    using T = typename Tile::T;
    const T** starts;  // of the head, in k and in v; shared, as above
    int64_t* slots;    // [kStages,kKeys]
    int page, offset;  // of the key looked up last

    __device__ KeyRows(const Paged& kv, const RowTile& t) : page(0), offset(0) {
        SIMT_SHARED(const T*, shared_starts, [2]);
        SIMT_SHARED(int64_t, shared_slots, [Tile::kStages * Tile::kKeys]);
        starts = shared_starts;
        slots = shared_slots;
        if (threadIdx.x > 0) return;
        const int64_t head = int64_t(t.head) * kv.dim;
        starts[0] = static_cast<const T*>(kv.k) + head;
        starts[1] = static_cast<const T*>(kv.v) + head;
    }
    __device__ void fetch(const Paged& kv, const RowTile& t, int tile) {
        const int key = tile * Tile::kKeys + threadIdx.x;
        if (threadIdx.x >= Tile::kKeys || key >= t.keys) return;
        const int position = t.first_key + key;
        page = kv.block_table[t.sequence * kv.table_stride + position / kv.page_size];
        offset = position % kv.page_size;
    }
    __device__ void publish(const Paged& kv, int tile) const {
        if (threadIdx.x < Tile::kKeys)
            slots[tile % Tile::kStages * Tile::kKeys + threadIdx.x] =
                int64_t(page) * kv.page_size + offset;
    }

    struct Walk {
        KeyRow<T> starts;
        const int64_t* slots;

        __device__ KeyRow<T> row(const Paged& kv, int key, bool wanted) const {
            const int64_t offset = (wanted ? slots[key] : 0) * stride(kv);
            return {starts.k + offset, starts.v + offset};
        }
        __device__ int64_t stride(const Paged& kv) const { return int64_t(kv.kv_heads) * kv.dim; }
    };
    __device__ Walk walk(const Paged&, int tile, int first, int column) const {
        const int64_t* const own = slots + tile % Tile::kStages * Tile::kKeys + first;
        return {{starts[0] + column, starts[1] + column}, own};
    }
};

// Copies tile `tile` of K and of V, [kKeys,kDim] each, of `keys` keys in all; the rows behind the
// last key, and the columns beyond D, arrive as zeros, and their memory is not read.
template <class Tile, class KV>
__device__ void copy_keys(typename Tile::T* stage, const KV& kv, const KeyRows<Tile, KV>& rows,
                          int tile, int keys) {
    using T = typename Tile::T;
    const int chunk = threadIdx.x % Tile::kChunks, first = threadIdx.x / Tile::kChunks;
    const int here = chunk * Tile::kChunk < kv.dim ? keys - tile * Tile::kKeys : 0;
    const auto walk = rows.walk(kv, tile, first, chunk * Tile::kChunk);
#pragma unroll
    for (int key = 0; key < Tile::kKeys; key += Tile::kRowsAtOnce) {
        const bool wanted = key + first < here;
        const KeyRow<T> from = walk.row(kv, key, wanted);
        T* to = stage + chunk_offset<Tile>(first, chunk) + key * Tile::kDim;
        simt::cp_async<16>(to, from.k, wanted);
        simt::cp_async<16>(to + Tile::kTile, from.v, wanted);
    }
}

// ---- Rows of a warp -----------------------------------------------------------------------------

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
    const int chunk = lane % Tile::kChunks, first_row = lane / Tile::kChunks;
    const int here = chunk * Tile::kChunk < dim ? count : 0;
    const RowCursor step(kAtOnce, p.group);
    RowCursor at(t.first_row + first + first_row, p.group);
    T* to = static_cast<T*>(p.out) + chunk * Tile::kChunk +
            (first_head + int64_t(at.query) * p.heads + at.member) * dim;
    const int64_t stride = (int64_t(step.query) * p.heads + step.member) * dim;
    const int64_t to_next_query = int64_t(p.heads - p.group) * dim;
#pragma unroll 2
    for (int row = first_row; row < here; row += kAtOnce) {
        *reinterpret_cast<uint4*>(to) =
            *reinterpret_cast<const uint4*>(rows + chunk_offset<Tile>(row, chunk));
        to += stride + (at.advance(step, p.group) ? to_next_query : 0);
    }
}

template <class Tile>
using Queries = std::conditional_t<Tile::kHoldsQueries, HeldQueries<Tile>, SharedQueries<Tile>>;

// ---- The kernel ---------------------------------------------------------------------------------

template <class Tile, class KV>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    prefill(PrefillParams p, KV kv, Options options) {
    using T = typename Tile::T;
    T* stages = simt::dynamic_shared<T>();                    // [kStages,2,kKeys,kDim]
    T* q_tile = simt::dynamic_shared<T>(Tile::kQueryOffset);  // [kRows,kDim]

    // What the loop needs once a turn or less is in shared memory: there is no register to spare.
    SIMT_SHARED(RowTile, shared_tile, );
    SIMT_SHARED(Keys, kept, [Tile::kRows]);
    SIMT_SHARED(WarpRows, warp_rows, [Tile::kWarps]);
    const int warp = threadIdx.x / 32, first = warp * Tile::kWarpRows;
    const RowTile t = find_row_tile<Tile>(kv, p.group, options);
    if (t.rows == 0) return;
    if (threadIdx.x == 0) shared_tile = t;

    // pass 1: fill all stages but one. Nothing that can be worked out meanwhile comes before.
    KeyRows<Tile, KV> rows(kv, t);
    for (int i = 0; i < Tile::kStages; ++i) {
        rows.fetch(kv, t, i);
        rows.publish(kv, i);
    }
    __syncthreads();                     // what went to shared memory is there for all
    const int& keys = shared_tile.keys;  // loaded anew after each barrier
    const auto copy_tile = [&](int i) {
        if (i * Tile::kKeys < keys)
            copy_keys<Tile>(stages + i % Tile::kStages * 2 * Tile::kTile, kv, rows, i, keys);
    };
    copy_tile(0);
    const T* queries_start = static_cast<const T*>(p.q) + t.first_query * p.q_stride +
                             int64_t(t.head * p.group) * p.q_head_stride;
    copy_queries<Tile>(
        q_tile, {queries_start, p.q_stride, p.q_head_stride, p.group, kv.dim, p.wide_queries},
        t.first_row, t.rows);
    simt::cp_async_commit();  // a group for every tile, there or not: waiting counts them
    for (int i = 1; i < Tile::kStages - 1; ++i) {
        copy_tile(i);
        simt::cp_async_commit();
    }
    if (threadIdx.x % 32 == 0)
        warp_rows[warp] = rows_of_warp(first, Tile::kWarpRows, t, p.group, options);
    if (threadIdx.x < Tile::kRows)
        kept[threadIdx.x] =
            int(threadIdx.x) < t.rows ? t.kept(threadIdx.x, p.group, options) : Keys{0, 0};
    if (Tile::kHoldsQueries) {
        simt::cp_async_wait<0>();
        __syncthreads();
    }
    const Queries<Tile> queries(SharedQueries<Tile>{q_tile + first * Tile::kDim});

    // pass 2: tile by tile
    const bool by_factor = options.softcap <= 0.0f && options.scale > 0.0f;
    const float factor = by_factor ? options.scale * kLog2E : 1.0f;
    Accumulator<Tile> acc;
    acc.clear();
    for (int i = 0; i * Tile::kKeys < keys; ++i) {
        simt::cp_async_wait<Tile::kStages - 2>();
        __syncthreads();  // tile i is there for all, and tile i - 1 is no longer read
        copy_tile(i + Tile::kStages - 1);
        simt::cp_async_commit();
        rows.fetch(kv, shared_tile, i + Tile::kStages);
        const int key = i * Tile::kKeys, end = key + Tile::kKeys;
        const WarpRows& w = warp_rows[warp];
        if (key < w.any.last && end > w.any.first) {
            const bool masked = key < w.all.first || end > w.all.last;
            const T* stage = stages + i % Tile::kStages * 2 * Tile::kTile;
            Scores<Tile> score;
            multiply_keys<Tile>(score, queries, stage);
            if (!by_factor) cap_scores<Tile>(score, options);
            if (masked) mask_scores<Tile>(score, kept + first, key);
            raise_maxima<Tile>(acc, score, factor);
            add_values<Tile>(acc, score, stage + Tile::kTile, factor);
        }
        rows.publish(kv, i + Tile::kStages);
    }
    simt::cp_async_wait<0>();  // the queries of a tile that keeps no key
    __syncthreads();           // and others may still read the stage that was theirs
    if (first < shared_tile.rows)
        write_rows<Tile>(acc, q_tile + first * Tile::kDim, first, warp_rows[warp].count,
                         shared_tile, p, kv.dim, factor);
}

}  // namespace yaie::attention
