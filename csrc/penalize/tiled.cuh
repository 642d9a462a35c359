// penalize, step 2: a block takes a tile of the vocabulary and counts the request's tokens that fall
// into it, in shared memory. N reads of tokens a tile instead of N^2 / 2 a row, and a row on as many
// blocks as it has tiles; counts are integers, so their order means nothing. What it won over
// step 1: docs/sampler.md.
#pragma once

#include "common/sampling.cuh"

namespace yaie::penalize {

constexpr int kTile = 8192;  // tokens of the vocabulary: 32 KiB of counters
constexpr int kTiledThreads = 512;
constexpr unsigned kInPrompt = 1u << 31;  // beside the count of the output

struct Span {
    const int* tokens;
    int count;

    __device__ Span(const int* all, const int* indptr, int64_t b)
        : tokens(all + indptr[b]), count(indptr[b + 1] - indptr[b]) {}
};

// Calls see(counter of the token) for the tokens that lie in the tile.
template <class See>
__device__ void for_tokens_in_tile(Span span, unsigned* counters, int first, int size, See see) {
    for (int i = threadIdx.x; i < span.count; i += blockDim.x) {
        const int at = span.tokens[i] - first;
        if (at >= 0 && at < size) see(counters + at);
    }
}

__device__ inline float penalized_logit(float logit, unsigned counter, float repetition,
                                        float frequency, float presence) {
    const unsigned count = counter & ~kInPrompt;
    logit = logit > 0.0f ? logit / repetition : logit * repetition;
    logit -= frequency * float(count);
    return count > 0 ? logit - presence : logit;
}

// Grid: row, then tile.
__global__ void __launch_bounds__(kTiledThreads)
    tiled(float* penalized, sampling::Rows logits, const int* prompt, const int* prompt_indptr,
          const int* output, const int* output_indptr, const float* repetition,
          const float* frequency, const float* presence, int tiles) {
    SIMT_SHARED(unsigned, counters, [kTile]);
    const int64_t b = blockIdx.x / tiles;
    const int first = blockIdx.x % tiles * kTile;
    const int size = min(kTile, logits.vocabulary - first);
    const float* from = logits.row(b) + first;
    float* to = penalized + b * logits.vocabulary + first;
    const float theta = repetition[b], f = frequency[b], p = presence[b];

    // Arithmetic would not keep the payload of a NaN.
    if (theta == 1.0f && f == 0.0f && p == 0.0f) {
        for (int i = threadIdx.x; i < size; i += blockDim.x) to[i] = from[i];
        return;  // all threads of the block do
    }
    for (int i = threadIdx.x; i < size; i += blockDim.x) counters[i] = 0;
    __syncthreads();  // before they count
    for_tokens_in_tile(Span(prompt, prompt_indptr, b), counters, first, size,
                       [](unsigned* counter) { atomicOr(counter, kInPrompt); });
    for_tokens_in_tile(Span(output, output_indptr, b), counters, first, size,
                       [](unsigned* counter) { atomicAdd(counter, 1u); });
    __syncthreads();  // all are counted
#pragma unroll 4      // loads under way
    for (int i = threadIdx.x; i < size; i += blockDim.x) {
        const float logit = from[i];
        to[i] = counters[i] == 0 ? logit : penalized_logit(logit, counters[i], theta, f, p);
    }
}

}  // namespace yaie::penalize
