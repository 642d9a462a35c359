// gather_kv, step 1: one thread an element.
//
// Reads and writes are coalesced along a token's row, but a thread moves one element (2 bytes of
// float16), and to find out from where it searches kv_indptr and reads the table for that alone:
// every thread of a row does the same work again.
#pragma once

#include "common/spans.cuh"

namespace yaie::gather_kv {

// out [N,row] = cache [P*S,row] at the slots of the batch, a row being all heads of a token. Only
// bits are moved, so Element is an unsigned type of the right size.
template <class Element>
__global__ void naive(Element* out, const Element* cache, spans::Spans batch, int64_t row,
                      int64_t elements) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= elements) return;
    out[i] = cache[batch.slot(i / row) * row + i % row];
}

}  // namespace yaie::gather_kv
