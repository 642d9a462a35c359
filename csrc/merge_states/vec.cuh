// merge_states, step 2: one thread a word of each side, in the widest words that alignment allows.
//
// Both sides are asked for before it is known how much they count, so that nothing waits for the
// log-sum-exps; of a side that saw no key the word is read for nothing and then left out, not
// multiplied by 0. Blocks are laid out as [tokens, heads, words], so that there is no division.
#pragma once

#include "common/merge.cuh"

namespace yaie::merge_states {

constexpr int kHeads = 2;  // of a token that a thread has in flight

template <class T, class Word>
struct Pair {
    Word a, b;
    float lse_a, lse_b;
};

template <class T, class Word>
__device__ Word merged(const Pair<T, Word>& pair, float& lse) {
    constexpr int N = Packed<T, Word>::kCount;
    const float most = fmaxf(pair.lse_a, pair.lse_b);
    const float weight_a = merging::weight(pair.lse_a, most);
    const float weight_b = merging::weight(pair.lse_b, most);
    const float total = weight_a + weight_b;
    lse = merging::merged_lse(most, total);
    const float share_a = total > 0.0f ? weight_a / total : 0.0f;
    const float share_b = total > 0.0f ? weight_b / total : 0.0f;
    float a[N], b[N];
    unpack<T>(a, pair.a);
    unpack<T>(b, pair.b);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const float sum = share_a > 0.0f ? share_a * a[i] : 0.0f;
        a[i] = share_b > 0.0f ? sum + share_b * b[i] : sum;
    }
    return pack<T, Word>(a);
}

template <class T, class Word>
__global__ void __launch_bounds__(256)
    vec(merging::State a, merging::State b, T* out, float* lse, int64_t tokens) {
    const int64_t token = int64_t(blockIdx.x) * blockDim.z + threadIdx.z;
    if (token >= tokens) return;
    const int heads = a.out.heads, words = a.out.dim / Packed<T, Word>::kCount;
    Word* result = reinterpret_cast<Word*>(out);
    for (int h = threadIdx.y; h < heads; h += kHeads * blockDim.y) {
        for (int w = threadIdx.x; w < words; w += blockDim.x) {
            // pass 1: all loads
            Pair<T, Word> pair[kHeads];
#pragma unroll
            for (int j = 0; j < kHeads; ++j) {
                const int head = h + j * blockDim.y;
                if (head >= heads) break;
                pair[j].lse_a = a.lse_at(token, head);
                pair[j].lse_b = b.lse_at(token, head);
                pair[j].a = reinterpret_cast<const Word*>(a.out.at<const T>(token, head))[w];
                pair[j].b = reinterpret_cast<const Word*>(b.out.at<const T>(token, head))[w];
            }
            // pass 2: merge and store
#pragma unroll
            for (int j = 0; j < kHeads; ++j) {
                const int head = h + j * blockDim.y;
                if (head >= heads) break;
                const int64_t row = token * heads + head;
                float merged_lse;
                result[row * words + w] = merged(pair[j], merged_lse);
                if (w == 0) lse[row] = merged_lse;
            }
        }
    }
}

}  // namespace yaie::merge_states
