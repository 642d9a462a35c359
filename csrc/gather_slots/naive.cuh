// gather_slots, step 1: one thread a row, which searches for its sequence on its own.
//
// Neighbours write side by side and mostly read one table entry, so little is wasted but the search:
// log2(B) dependent reads of kv_indptr, the same ones for almost all threads of a block.
#pragma once

#include "common/spans.cuh"

namespace yaie::gather_slots {

__global__ void naive(int* slots, spans::Spans batch, int64_t rows) {
    const int64_t row = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (row < rows) slots[row] = static_cast<int>(batch.slot(row));
}

}  // namespace yaie::gather_slots
