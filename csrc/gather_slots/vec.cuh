// gather_slots, step 2: one search a warp.
//
// A warp takes kRows times 32 rows that follow each other, finds the sequences of the first and the
// last together, and reads a few table entries a lane at once. Its stores are whole lines.
#pragma once

#include "common/spans.cuh"

namespace yaie::gather_slots {

constexpr int kThreads = 256;
constexpr int kRows = 4;  // of a lane

__global__ void __launch_bounds__(kThreads) vec(int* slots, spans::Spans batch, int64_t rows) {
    const int64_t warp = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
    const int64_t first = warp * (32 * kRows), end = min(first + 32 * kRows, rows);
    if (first >= rows) return;  // all lanes of the warp
    const spans::Range range = spans::range_by_warp(batch, first, end - 1);

    // pass 1: all table entries
    int64_t slot[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
        const int64_t row = first + i * 32 + threadIdx.x % 32;
        if (row < end) slot[i] = spans::slot_within(batch, range, row);
    }
    // pass 2: all stores
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
        const int64_t row = first + i * 32 + threadIdx.x % 32;
        if (row < end) slots[row] = static_cast<int>(slot[i]);
    }
}

}  // namespace yaie::gather_slots
