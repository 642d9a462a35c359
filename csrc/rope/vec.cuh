// rope, step 2: one thread two words of a head, both sides of its pairs, in the widest words that
// alignment allows.
//
// Every number of x is read once. A thread turns the same pairs of kHeads heads, for which it reads
// cosines and sines once, and asks for all its words of x before it needs the table: the table's row
// hangs on the position, two reads one after the other, and x arrives meanwhile. Blocks are laid out
// as [tokens, heads, items], so that there is no division.
#pragma once

#include "common/rope.cuh"

namespace yaie::rope {

constexpr int kHeads = 2;  // of a token that a thread has in flight

template <class T, class Word, bool kInterleaved>
__global__ void __launch_bounds__(256) vec(Heads x, T* y, rotary::Table table, int64_t tokens) {
    constexpr int N = Packed<T, Word>::kCount;
    const int64_t token = int64_t(blockIdx.x) * blockDim.z + threadIdx.z;
    if (token >= tokens) return;
    const int words = x.dim / N, items = (words + 1) / 2;
    const float* row = table.row(token);
    T* result = y + token * x.heads * x.dim;
    for (int i = threadIdx.x; i < items; i += blockDim.x) {
        const rotary::Item item = rotary::item_of<N>(i, table.half, kInterleaved);
        for (int h = threadIdx.y; h < x.heads; h += kHeads * blockDim.y) {
            // pass 1: all words of x
            rotary::Words<Word> part[kHeads];
#pragma unroll
            for (int j = 0; j < kHeads; ++j) {
                const int head = h + j * blockDim.y;
                if (head < x.heads)
                    part[j] = rotary::load<T, Word>(x.at<const T>(token, head), item, words);
            }
            // pass 2: turn and store
            rotary::Angles<N> angles;
            if (item.turns) angles = rotary::angles_of<N>(table, row, item);
#pragma unroll
            for (int j = 0; j < kHeads; ++j) {
                const int head = h + j * blockDim.y;
                if (head >= x.heads) break;
                if (item.turns) rotary::turn<T, kInterleaved>(part[j], angles);
                rotary::store(result + int64_t(head) * x.dim, item, words, part[j]);
            }
        }
    }
}

}  // namespace yaie::rope
