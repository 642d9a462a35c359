// common_prefix_len, step 1: one thread a pair, one token after the other.
//
// It stops where it may, but a pair of long prompts that agree keeps one thread busy alone, and the
// threads of a warp read places that lie far apart: 4 bytes of every 32 that are fetched are used.
#pragma once

#include "common_prefix_len/packed.cuh"

namespace yaie::common_prefix_len {

__global__ void naive(int* length, Packed a, Packed b, int64_t page, int64_t pairs) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= pairs) return;
    const int64_t a_first = a.indptr[i], b_first = b.indptr[i];
    // What the shorter one has: behind it lies another sequence, or nothing at all.
    const int64_t most = min(a.indptr[i + 1] - a_first, b.indptr[i + 1] - b_first);
    int64_t equal = 0;
    while (equal < most && a.tokens[a_first + equal] == b.tokens[b_first + equal]) ++equal;
    length[i] = static_cast<int>(equal - equal % page);  // only whole pages count
}

}  // namespace yaie::common_prefix_len
