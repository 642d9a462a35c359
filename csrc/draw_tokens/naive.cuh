// draw_tokens, step 1: one block a row, one pass: every token's score, and the best of them.
#pragma once

#include "common/sampling.cuh"

namespace yaie::draw_tokens {

__global__ void __launch_bounds__(sampling::kThreads)
    naive(int* token, sampling::Rows probs, const int64_t* seed, const int* position) {
    const int64_t b = blockIdx.x;
    const float* row = probs.row(b);
    const sampling::Candidate best =
        sampling::race(probs.vocabulary, static_cast<uint64_t>(seed[b]),
                       static_cast<unsigned>(position[b]), [&](int v) { return logf(row[v]); });
    if (threadIdx.x == 0) token[b] = best.score > -INFINITY ? best.token : -1;
}

}  // namespace yaie::draw_tokens
