// What the gather kernels share: which cache slot a row of the result comes from.
#pragma once

#include "simt/simt.h"

namespace yaie::spans {

// Row kv_indptr[b] + i stands for position kv_start[b] + i of sequence b.
struct Spans {
    const int* block_table;  // [B,W]
    const int* kv_indptr;    // [B+1]
    const int* kv_start;     // [B], or null: every sequence from its position 0 on
    int64_t table_stride;    // of a row, in elements
    int sequences;
    int64_t page_size;

    // The last b from `low` to `high` - 1 with kv_indptr[b] <= row, where kv_indptr[low] <= row <
    // kv_indptr[high]: sequences that ask for nothing are stepped over, since the next one starts at
    // the same row.
    __device__ int sequence(int64_t row, int low, int high) const {
        while (high - low > 1) {
            const int middle = (low + high) / 2;
            if (kv_indptr[middle] <= row)
                low = middle;
            else
                high = middle;
        }
        return low;
    }

    // 64 bits throughout: a slot may be the last that int32 holds, and what a caller multiplies it
    // with passes 2^31 at ordinary sizes.
    __device__ int64_t slot(int64_t row) const {
        const int b = sequence(row, 0, sequences);
        const int64_t start = kv_start ? kv_start[b] : 0;
        const int64_t position = start + (row - kv_indptr[b]);
        const int64_t page = block_table[b * table_stride + position / page_size];
        return page * page_size + position % page_size;
    }
};

// Fast variants.

constexpr unsigned kFullWarp = 0xffffffffu;

// Spans::sequence of one row for a whole warp, 32 probes at a time: two dependent reads for up to
// 1,024 sequences where a search by halves takes ten. All lanes must ask for the same row.
__device__ inline int sequence_by_warp(const Spans& batch, int64_t row) {
    const int lane = threadIdx.x % 32;  // of blocks with one axis
    int low = 0, high = batch.sequences;
    while (high - low > 1) {
        const int step = (high - low + 31) / 32, probe = low + lane * step;
        const bool starts = probe < high && batch.kv_indptr[probe] <= row;
        // The lanes whose probe starts at or before the row are the first ones, lane 0 among them.
        low += (__popc(__ballot_sync(kFullWarp, starts)) - 1) * step;
        high = min(low + step, high);
    }
    return low;
}

// The sequences of the rows first to last: the search for one of them need look no further.
struct Range {
    int low, high;
};

__device__ inline Range range_by_warp(const Spans& batch, int64_t first, int64_t last) {
    return {sequence_by_warp(batch, first), sequence_by_warp(batch, last) + 1};
}

// Spans::slot of a row in the range. Nearly always that is one sequence, and nothing is searched.
// Positions and offsets fit into 32 bits, whose division is a fraction of that of 64: a position is
// the sum of two numbers below 2^31.
__device__ inline int64_t slot_within(const Spans& batch, const Range& range, int64_t row) {
    const int b = batch.sequence(row, range.low, range.high);
    const unsigned start = batch.kv_start ? batch.kv_start[b] : 0;
    const unsigned position = start + static_cast<unsigned>(row - batch.kv_indptr[b]);
    const unsigned page_size = static_cast<unsigned>(min(batch.page_size, int64_t(0xffffffff)));
    const int64_t page = batch.block_table[b * batch.table_stride + position / page_size];
    return page * batch.page_size + position % page_size;
}

}  // namespace yaie::spans
