// sample, step 1: the threshold of filter_tokens, then the race of draw_tokens; probabilities are
// never stored. The race takes logarithms of weights, which need no sum: all scores of a row would
// move by the same amount.
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

    const sampling::Kept kept(row, V, most, filter);
    const auto log_p = [&](int v) {
        const bool takes_part = kept.weight(v) > 0.0f;
        return takes_part ? sampling::log_weight(row[v], most, filter.temperature) : -INFINITY;
    };
    const sampling::Candidate best = sampling::race(V, static_cast<uint64_t>(seed[b]),
                                                    static_cast<unsigned>(position[b]), log_p);
    if (threadIdx.x == 0) token[b] = best.token;  // the argmax takes part, so there is one
}

}  // namespace yaie::sample
