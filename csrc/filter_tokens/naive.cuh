// filter_tokens, step 1: one block a row, no sort and no workspace.
//
// What a row keeps is all from one logit on, so that logit is searched for, bit by bit: 32 passes
// over the row for top_k, 32 for top_p. Each pass reads the row again (from L2, mostly) and top_p
// computes every exponential again.
#pragma once

#include "common/sampling.cuh"

namespace yaie::filter_tokens {

__global__ void __launch_bounds__(sampling::kThreads)
    naive(float* probs, sampling::Rows logits, sampling::FilterRows filters) {
    const int V = logits.vocabulary;
    const float* row = logits.row(blockIdx.x);
    const sampling::Filter filter = filters.row(blockIdx.x);
    float* result = probs + int64_t(blockIdx.x) * V;

    // pass 1: the maximum, and whether there is one
    const float most = sampling::largest(row, V);
    if (isinf(most) || filter.temperature == 0.0f) {
        const int only = isinf(most) ? -1 : sampling::first_largest(row, V);
        for (int v = threadIdx.x; v < V; v += blockDim.x) result[v] = v == only ? 1.0f : 0.0f;
        return;  // all threads of the block do
    }

    // passes 2 to 65: the threshold
    const sampling::Kept kept(row, V, most, filter);

    // passes 66 and 67: the sum of what is kept, and its shares
    float sum = 0.0f;
    for (int v = threadIdx.x; v < V; v += blockDim.x) sum += kept.weight(v);
    sum = sampling::reduce_block(sum, sampling::Sum());
    for (int v = threadIdx.x; v < V; v += blockDim.x) result[v] = kept.weight(v) / sum;
}

}  // namespace yaie::filter_tokens
