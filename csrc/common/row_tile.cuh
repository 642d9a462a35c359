// How prefill kernels deal a ragged batch out to blocks. The query heads of a KV head share its keys,
// so a row of work is a (query, head of the group), query by query, and a block takes Tile::kRows
// rows of one sequence and one KV head.
#pragma once

#include "common/attention.cuh"

namespace yaie::attention {

// Row tiles of a sequence, as slots of the grid: sequence b has those from first_slot(b) on, at
// least as many as it needs, so that no prefix sum over the batch is necessary.
template <class Tile>
__host__ __device__ int64_t first_slot(int64_t first_query, int64_t b, int group) {
    return first_query * group / Tile::kRows + b;
}

// One row tile of one KV head.
struct RowTile {
    int sequence, head;
    int first_query, queries, kv_len;  // of the sequence
    int first_row, rows;               // of its queries * group rows
    int first_key, keys;               // from the first to the last that any of the rows keeps

    // What a row of the tile keeps, counted from first_key.
    __device__ Keys kept(int row, int group, const Options& options) const {
        const int64_t position = int64_t(kv_len) - queries + (first_row + row) / group;
        const Keys keys = kept_keys(position, kv_len, options);
        return {keys.first - first_key, keys.last - first_key};
    }
};

// The last b whose first slot is not behind `slot`: a warp looks at 32 at a time.
template <class Tile, class KV>
__device__ int find_sequence(const KV& kv, int group, int64_t slot) {
    const int lane = threadIdx.x % 32;
    int low = 0, count = kv.sequences;
    while (count > 1) {
        const int step = (count + 31) / 32, b = low + lane * step;
        const bool reached =
            lane * step < count && first_slot<Tile>(__ldg(kv.q_indptr + b), b, group) <= slot;
        const int last = 31 - __clz(__ballot_sync(~0u, reached));
        low += last * step;
        count = min(step, count - last * step);
    }
    return low;
}

// The row tile of this block; rows is 0 where its slot is one too many. Within a sequence the last
// tile comes first: under a causal mask it has the most keys, and long blocks at the end of a grid
// leave the GPU half idle.
template <class Tile, class KV>
__device__ RowTile find_row_tile(const KV& kv, int group, const Options& options) {
    RowTile t;
    const int64_t slot = blockIdx.x / kv.kv_heads;
    t.head = blockIdx.x % kv.kv_heads;
    t.sequence = find_sequence<Tile>(kv, group, slot);
    t.first_query = kv.q_indptr[t.sequence];
    t.queries = kv.q_indptr[t.sequence + 1] - t.first_query;
    t.kv_len = kv.kv_len(t.sequence);
    const int rows = t.queries * group, tiles = (rows + Tile::kRows - 1) / Tile::kRows;
    const int above = int(slot - first_slot<Tile>(t.first_query, t.sequence, group));
    t.first_row = (tiles - 1 - above) * Tile::kRows;
    t.rows = above < tiles ? min(Tile::kRows, rows - t.first_row) : 0;
    t.first_key = 0;
    t.first_key = t.kept(0, group, options).first;
    t.keys = t.kept(t.rows - 1, group, options).last;
    return t;
}

// (query, head of the group) of a row, without a division a step.
struct RowCursor {
    int query, member;

    __device__ RowCursor(int row, int group) : query(row / group), member(row % group) {}
    // Whether it came to one query more than the step has.
    __device__ bool advance(const RowCursor& step, int group) {
        query += step.query;
        member += step.member;
        const bool wraps = member >= group;
        if (wraps) {
            member -= group;
            ++query;
        }
        return wraps;
    }
};

}  // namespace yaie::attention
