// rope, step 1: one thread an element.
//
// Each reads both numbers of its pair, so x is asked for twice, and works out its indices with
// divisions of 64 bits for 2 bytes of float16.
#pragma once

#include "common/rope.cuh"

namespace yaie::rope {

template <class T>
__global__ void naive(Heads x, T* y, rotary::Table table, int64_t elements) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= elements) return;
    const int64_t token = i / x.dim / x.heads;
    const int head = static_cast<int>(i / x.dim % x.heads);
    const int d = static_cast<int>(i % x.dim);
    y[i] = rotary::rotated(x.at<const T>(token, head), d, table, table.row(token));
}

}  // namespace yaie::rope
