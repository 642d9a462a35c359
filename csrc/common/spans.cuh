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

    // The last b with kv_indptr[b] <= row: sequences that ask for nothing are stepped over, since
    // the next one starts at the same row.
    __device__ int sequence(int64_t row) const {
        int low = 0, high = sequences;  // kv_indptr[low] <= row < kv_indptr[high]
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
        const int b = sequence(row);
        const int64_t start = kv_start ? kv_start[b] : 0;
        const int64_t position = start + (row - kv_indptr[b]);
        const int64_t page = block_table[b * table_stride + position / page_size];
        return page * page_size + position % page_size;
    }
};

}  // namespace yaie::spans
