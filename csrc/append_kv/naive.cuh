// append_kv, step 1: one thread an element.
//
// Reads and writes are coalesced along D, but a thread moves one element (2 bytes of float16), an
// eighth of what it could, and works out its indices for that alone.
#pragma once

#include "simt/simt.h"

namespace yaie::append_kv {

struct Rows {  // a [T,Hk,D] tensor
    const void* data;
    int64_t token_stride;  // in elements
    int64_t head_stride;
    int heads, dim;
};

template <class Element>
__global__ void naive(Rows source, Element* cache, const int* slots, int64_t elements) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= elements) return;
    const int64_t row = int64_t(source.heads) * source.dim;
    const int64_t t = i / row;
    const int h = static_cast<int>(i % row / source.dim);
    const int d = static_cast<int>(i % source.dim);
    const int64_t slot = slots[t];
    if (slot < 0) return;  // skip this token
    const Element* element = static_cast<const Element*>(source.data);
    cache[slot * row + i % row] = element[t * source.token_stride + h * source.head_stride + d];
}

}  // namespace yaie::append_kv
