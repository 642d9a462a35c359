// copy_blocks, step 1: one block a page, one thread an element at a time, one launch a layer.
#pragma once

#include "simt/simt.h"

namespace yaie::copy_blocks {

// In place is simultaneous: no page that is written is read (the op's contract).
template <class Element>
__global__ void naive(Element* cache, const int* pairs, int64_t page_elements) {
    const int64_t src = pairs[2 * int64_t(blockIdx.x)];
    const int64_t dst = pairs[2 * int64_t(blockIdx.x) + 1];
    if (src == dst) return;
    for (int64_t i = threadIdx.x; i < page_elements; i += blockDim.x)
        cache[dst * page_elements + i] = cache[src * page_elements + i];
}

}  // namespace yaie::copy_blocks
