// common_prefix_len, step 2: one block a pair.
//
// The block compares thousands of tokens in a turn: its threads read neighbouring ones, each several
// from both sides before it looks at the first. The earliest difference of the turn is the least of
// what the threads found, so a turn costs one trip to memory and one barrier, where a thread alone
// makes a trip for every token. Beyond the turn with the difference nothing is read.
#pragma once

#include "common_prefix_len/packed.cuh"

namespace yaie::common_prefix_len {

constexpr int kThreads = 256;
constexpr int kTokens = 16;  // of each side, under way at once in a thread
constexpr int kTurn = kThreads * kTokens;

// The least of what the threads hold. Called by all threads; `of_warps` may be written again after
// the next barrier.
__device__ inline int least_of_block(int value, int* of_warps) {
    const int least = __reduce_min_sync(0xffffffffu, value);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = least;
    __syncthreads();
    int result = of_warps[0];
    for (int w = 1; w < kThreads / 32; ++w) result = min(result, of_warps[w]);
    return result;
}

// Where the first `count` tokens differ first, kTurn if they do not; by all threads.
__device__ inline int first_difference(const int* a, const int* b, int64_t count, int* of_warps) {
    int left[kTokens], right[kTokens];
#pragma unroll
    for (int k = 0; k < kTokens; ++k) {
        const int at = k * kThreads + threadIdx.x;
        left[k] = at < count ? a[at] : 0;
        right[k] = at < count ? b[at] : 0;
    }
    int first = kTurn;
#pragma unroll
    for (int k = kTokens - 1; k >= 0; --k)
        if (left[k] != right[k]) first = k * kThreads + threadIdx.x;
    return least_of_block(first, of_warps);
}

__global__ void __launch_bounds__(kThreads) block(int* length, Packed a, Packed b, int64_t page) {
    SIMT_SHARED(int, of_warps, [2][kThreads / 32]);  // by turns: a barrier a turn is enough
    const int64_t i = blockIdx.x;
    const int64_t a_first = a.indptr[i], b_first = b.indptr[i];
    const int64_t most = min(a.indptr[i + 1] - a_first, b.indptr[i + 1] - b_first);
    int64_t equal = 0;
    for (int turn = 0; equal < most; ++turn) {
        const int first = first_difference(a.tokens + a_first + equal, b.tokens + b_first + equal,
                                           most - equal, of_warps[turn % 2]);
        equal += first;
        if (first < kTurn) break;
    }
    equal = min(equal, most);
    if (threadIdx.x == 0) length[i] = static_cast<int>(equal - equal % page);
}

}  // namespace yaie::common_prefix_len
