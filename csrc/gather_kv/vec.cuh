// gather_kv, step 2: one search a warp for its rows' slots, then the widest words that alignment
// allows, several of them in flight in every thread.
//
// A block takes so many rows of K or of V that a thread holds kInFlight words. It works out their
// slots once, in shared memory; to move a word then takes one multiplication. K and V are the
// two halves of the grid.
#pragma once

#include "common/spans.cuh"

namespace yaie::gather_kv {

constexpr int kThreads = 256;
constexpr int kInFlight = 8;  // words of a thread

struct Side {  // out [N,words] out of cache [P*S,words]
    void* out;
    const void* cache;
    int words;  // of all heads of a token
};

// Rows of a block: those that all its threads hold at once, as far as shared memory reaches.
__host__ __device__ inline int rows_of_block(int words) {
    return min(kThreads, kInFlight * max(1, kThreads / max(words, 1)));
}

template <class Word>
__global__ void __launch_bounds__(kThreads)
    vec(Side k, Side v, spans::Spans batch, int64_t rows, int block_rows) {
    SIMT_SHARED(int64_t, slots, [kThreads]);
    const Side side = blockIdx.y == 0 ? k : v;
    const int64_t first = int64_t(blockIdx.x) * block_rows;
    const int count = static_cast<int>(min(int64_t(block_rows), rows - first));

    // pass 1: the slots of the rows, 32 a warp
    const int lane = threadIdx.x % 32, base = threadIdx.x - lane;
    if (base < count) {
        const int last = min(base + 32, count) - 1;
        const spans::Range range = spans::range_by_warp(batch, first + base, first + last);
        if (base + lane <= last)
            slots[base + lane] = spans::slot_within(batch, range, first + base + lane);
    }
    __syncthreads();

    // pass 2: the words; threads are [rows, words]
    const int columns = min(side.words, kThreads), lines = kThreads / max(columns, 1);
    const int line = threadIdx.x / max(columns, 1);
    if (line >= lines) return;
    Word* out = static_cast<Word*>(side.out) + first * side.words;
    const Word* cache = static_cast<const Word*>(side.cache);
    for (int w = threadIdx.x - line * columns; w < side.words; w += columns) {
        Word word[kInFlight];
#pragma unroll
        for (int i = 0; i < kInFlight; ++i) {
            const int row = line + i * lines;
            if (row < count) word[i] = cache[slots[row] * side.words + w];
        }
#pragma unroll
        for (int i = 0; i < kInFlight; ++i) {
            const int row = line + i * lines;
            if (row < count) out[int64_t(row) * side.words + w] = word[i];
        }
    }
}

}  // namespace yaie::gather_kv
