// sample, step 1: the threshold of filter_tokens, then the race of draw_tokens, one block a row;
// probabilities are never stored.
#pragma once

#include "common/sampling.cuh"

namespace yaie::sample {

__global__ void __launch_bounds__(sampling::kThreads)
    naive(int* token, sampling::Rows logits, sampling::FilterRows filters, const int64_t* seed,
          const int* position) {
    const int V = logits.vocabulary;
    const int64_t b = blockIdx.x;
    const float* row = logits.row(b);
    const sampling::Filter filter = filters.row(b);

    const float most = sampling::largest(row, V);
    if (isinf(most) || filter.temperature == 0.0f) {
        const int only = isinf(most) ? -1 : sampling::first_largest(row, V);
        if (threadIdx.x == 0) token[b] = only;
        return;  // all threads of the block do
    }
    const int drawn = sampling::draw_kept(row, V, most, filter, static_cast<uint64_t>(seed[b]),
                                          static_cast<unsigned>(position[b]));
    if (threadIdx.x == 0) token[b] = drawn;
}

}  // namespace yaie::sample
