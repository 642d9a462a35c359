// greedy, step 1: one block a row, two passes over it: is it valid, and where is its maximum.
#pragma once

#include "common/sampling.cuh"

namespace yaie::greedy {

__global__ void __launch_bounds__(sampling::kThreads) naive(int* token, sampling::Rows logits) {
    const float* row = logits.row(blockIdx.x);
    const float most = sampling::largest(row, logits.vocabulary);
    const int first = sampling::first_largest(row, logits.vocabulary);
    if (threadIdx.x == 0) token[blockIdx.x] = isinf(most) ? -1 : first;
}

}  // namespace yaie::greedy
