// append_kv, step 2: one block a token, the widest words that alignment allows, K and V side by side.
//
// The first row of a block's threads moves K, the second V. A thread moves 16 bytes at a time where
// pointers, pitches and D allow it, and asks for its first word before the slot is known, so that
// both reads are under way at once: of a skipped token it reads a word for nothing. What it won over
// step 1, and what more tokens a thread or streaming hints did not: docs/kernels.md.
#pragma once

#include "simt/simt.h"

namespace yaie::append_kv {

struct Words {  // a [T,Hk,D] tensor, counted in words
    const void* data;
    int64_t token_stride;
    int64_t head_stride;
    int heads, words;  // words of one head; heads = 1 where a token's heads lie side by side
};

template <class Word>
__device__ Word load_word(const Words& source, int64_t token, int i) {
    const Word* row = static_cast<const Word*>(source.data) + token * source.token_stride;
    return row[i / source.words * source.head_stride + i % source.words];
}

template <class Word>
__device__ void store_token(const Words& source, Word* cache, const int* slots) {
    const int64_t token = blockIdx.x;
    const int row = source.heads * source.words;  // words of one token
    int i = threadIdx.x;
    Word word;
    if (i < row) word = load_word<Word>(source, token, i);
    const int64_t slot = slots[token];
    if (slot < 0) return;  // skip this token
    while (i < row) {
        cache[slot * row + i] = word;
        i += blockDim.x;
        if (i < row) word = load_word<Word>(source, token, i);
    }
}

template <class Word>
__global__ void vec(Words k, Words v, Word* k_cache, Word* v_cache, const int* slots) {
    if (threadIdx.y == 0)
        store_token(k, k_cache, slots);
    else
        store_token(v, v_cache, slots);
}

}  // namespace yaie::append_kv
