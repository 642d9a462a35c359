// The line of all tiles of mma_decode: what units the batch is made of, how the line is dealt out to
// the blocks, and a cursor that goes along it.
#pragma once

#include "common/attention.cuh"

namespace yaie::paged_attention {

// The part of the batch that one row tile of one KV head makes up.
struct Unit {
    int first_row, rows;  // of the sequence's q_len * group rows
    attention::Keys any;  // kept by one of the rows at least
    attention::Keys all;  // kept by all of them
    int tiles;            // one at least, so that rows without keys are written too
};

struct Sequence {
    int first_query, queries, keys;
    __device__ int row_tiles(int group) const { return (queries * group + 15) / 16; }
};

__device__ inline Sequence sequence_of(const attention::Paged& kv, int b) {
    const int first = __ldg(kv.q_indptr + b);
    return {first, __ldg(kv.q_indptr + b + 1) - first, __ldg(kv.kv_lens + b)};
}

// Row tile `tile` of a sequence, and the keys that any of its rows keeps.
__device__ inline Unit unit_of(const Sequence& s, int tile, int group, int keys_of_tile,
                               const attention::Options& options) {
    Unit unit;
    unit.first_row = tile * 16;
    unit.rows = min(16, s.queries * group - unit.first_row);
    const int64_t top = int64_t(s.keys) - s.queries + unit.first_row / group;  // positions
    const int64_t bottom = int64_t(s.keys) - s.queries + (unit.first_row + unit.rows - 1) / group;
    const attention::Keys first = attention::kept_keys(top, s.keys, options);
    const attention::Keys last = attention::kept_keys(bottom, s.keys, options);
    unit.any = {first.first, last.last};  // without a gap: the next row keeps the next keys
    unit.all = {last.first, first.last};
    unit.tiles = max(1, (unit.any.last - unit.any.first + keys_of_tile - 1) / keys_of_tile);
    return unit;
}

__device__ inline int64_t tiles_of(const Sequence& s, int group, int kv_heads, int keys_of_tile,
                                   const attention::Options& options) {
    int64_t tiles = 0;
#pragma unroll 1
    for (int i = 0; i < s.row_tiles(group); ++i)
        tiles += unit_of(s, i, group, keys_of_tile, options).tiles;
    return tiles * kv_heads;
}

// How the line is dealt out: the first `longer` blocks take each + 1 tiles, the others `each`.
struct Deal {
    int64_t each, longer;

    __device__ Deal(int64_t tiles, int blocks) : each(tiles / blocks), longer(tiles % blocks) {}

    __device__ int64_t start(int block) const { return block * each + min(int64_t(block), longer); }

    __device__ int owner(int64_t tile) const {
        const int64_t first = longer * (each + 1);  // tile of those that take `each`
        return static_cast<int>(tile < first ? tile / (each + 1) : longer + (tile - first) / each);
    }
};

// A place in the line of tiles. It moves from key tile to key tile, from head to head, from row tile
// to row tile, from sequence to sequence.
struct Cursor {
    int b, row_tile, head;
    int tile;  // of the unit
    Sequence sequence;
    Unit unit;

    __device__ void enter(int group, int keys_of_tile, const attention::Options& options) {
        unit = unit_of(sequence, row_tile, group, keys_of_tile, options);
    }

    // To the tile that `tiles` come before, of those of sequence `of`.
    __device__ void find(int of, int64_t tiles, const attention::Paged& kv, int group,
                         int keys_of_tile, const attention::Options& options) {
        b = of;
        sequence = sequence_of(kv, b);
#pragma unroll 1
        for (row_tile = 0;; ++row_tile) {
            enter(group, keys_of_tile, options);
            const int64_t here = int64_t(unit.tiles) * kv.kv_heads;
            if (tiles < here) break;
            tiles -= here;
        }
        head = static_cast<int>(tiles / unit.tiles);
        tile = static_cast<int>(tiles % unit.tiles);
    }

    __device__ void advance(const attention::Paged& kv, int group, int keys_of_tile,
                            const attention::Options& options) {
        if (++tile < unit.tiles) return;
        tile = 0;
        if (++head < kv.kv_heads) return;
        head = 0;
        if (++row_tile == sequence.row_tiles(group)) {
            row_tile = 0;
#pragma unroll 1
            do {  // there is a next one: a stretch ends before the line does
                if (++b == kv.sequences) return;
                sequence = sequence_of(kv, b);
            } while (sequence.queries == 0);
        }
        enter(group, keys_of_tile, options);
    }
};

// Finds the first tile of this block's stretch, and returns how the line is dealt out: every thread
// adds up the tiles of some sequences, and the one whose sequences hold the tile says in which.
template <class Tile>
__device__ Deal find_start(Cursor& cursor, int group, const attention::Paged& kv,
                           const attention::Options& options) {
    SIMT_SHARED(int64_t, warp_sum, [Tile::kWarps]);
    SIMT_SHARED(int64_t, tiles_before, );
    SIMT_SHARED(int, sequence, );
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int each = (kv.sequences + Tile::kThreads - 1) / Tile::kThreads;
    const int begin = min(kv.sequences, int(threadIdx.x) * each);
    const int end = min(kv.sequences, begin + each);
    const auto tiles_at = [&](int b) {
        return tiles_of(sequence_of(kv, b), group, kv.kv_heads, Tile::kKeys, options);
    };

    // pass 1: tiles of this thread's sequences, and of all threads before it
    int64_t own = 0;
#pragma unroll 1
    for (int b = begin; b < end; ++b) own += tiles_at(b);
    int64_t before = own;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const int64_t other = __shfl_up_sync(~0u, before, step);
        if (lane >= step) before += other;
    }
    if (lane == 31) warp_sum[warp] = before;
    __syncthreads();
    before -= own;
    int64_t total = 0;
#pragma unroll
    for (int w = 0; w < Tile::kWarps; ++w) {
        if (w < warp) before += warp_sum[w];
        total += warp_sum[w];
    }

    // pass 2: one thread holds the first tile
    const Deal deal(total, gridDim.x);
    int64_t rest = deal.start(blockIdx.x) - before;
    if (rest >= 0 && rest < own) {
        int b = begin;
#pragma unroll 1
        for (; b + 1 < end; ++b) {
            const int64_t tiles = tiles_at(b);
            if (rest < tiles) break;
            rest -= tiles;
        }
        sequence = b;
        tiles_before = rest;
    }
    __syncthreads();
    if (deal.start(blockIdx.x) < total)
        cursor.find(sequence, tiles_before, kv, group, Tile::kKeys, options);
    return deal;
}

}  // namespace yaie::paged_attention
