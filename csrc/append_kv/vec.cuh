// append_kv, step 2: one block a token, the widest words that alignment allows, K and V together.
//
// A thread moves 16 bytes at a time where pointers, pitches and D allow it, and reads its K and its
// V word before it writes either, so that two loads are in flight. The slot is read once a thread,
// from one address a block. What it won over step 1: docs/kernels.md.
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
__global__ void vec(Words k, Words v, Word* k_cache, Word* v_cache, const int* slots) {
    const int64_t token = blockIdx.x;
    const int64_t slot = slots[token];
    if (slot < 0) return;  // skip this token
    const int k_words = k.heads * k.words, v_words = v.heads * v.words;
    for (int i = threadIdx.x; i < max(k_words, v_words); i += blockDim.x) {
        Word from_k, from_v;
        if (i < k_words) from_k = load_word<Word>(k, token, i);
        if (i < v_words) from_v = load_word<Word>(v, token, i);
        if (i < k_words) k_cache[slot * k_words + i] = from_k;
        if (i < v_words) v_cache[slot * v_words + i] = from_v;
    }
}

}  // namespace yaie::append_kv
