// greedy, step 2: one pass, 16 bytes a load, several blocks a row where there are few rows. What it
// won over step 1: docs/sampler.md.
#pragma once

#include "common/sampling_parts.cuh"

namespace yaie::greedy {

// A NaN counts as +inf, which makes the row invalid as +inf itself does. A thread sees its tokens in
// ascending order, so of equals it keeps the first.
struct Leader {
    sampling::Candidate best = sampling::kNobody;

    __device__ void see(float logit, int token) {
        if (logit != logit) logit = INFINITY;
        if (logit > best.score) best = {logit, token};
    }
};

__global__ void __launch_bounds__(sampling::kPartThreads)
    split(int* token, sampling::Candidate* best_of_part, sampling::Rows logits, int parts,
          int chunks_a_part) {
    simt::let_launch_after_start();
    const sampling::Chunks row(logits, blockIdx.x / parts);
    const sampling::Part part(parts, chunks_a_part, row.count());
    Leader leader;
    sampling::for_chunks<sampling::kAhead>(row, part, -INFINITY, [&](int chunk, float4 x) {
        const int v = row.first_token(chunk);
        leader.see(x.x, v);
        leader.see(x.y, v + 1);
        leader.see(x.z, v + 2);
        leader.see(x.w, v + 3);
    });
    const sampling::Candidate best = sampling::reduce_block(leader.best, sampling::Better());
    sampling::settle_part(token, best_of_part, parts, best);
}

}  // namespace yaie::greedy
