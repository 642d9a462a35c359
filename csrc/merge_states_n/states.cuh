// The K states that merge_states_n joins.
#pragma once

#include "common/merge.cuh"

namespace yaie::merge_states_n {

// States [K,T,H,D] and log-sum-exps [K,T,H]: those of the first, and how far the next ones lie, in
// elements.
struct States {
    merging::State first;
    int64_t stride, lse_stride;
    int count;

    __device__ float lse_at(int k, int64_t token, int head) const {
        return first.lse[k * lse_stride + token * first.lse_stride + head];
    }

    template <class T>
    __device__ const T* at(int k, int64_t token, int head) const {
        return first.out.at<const T>(token, head) + k * stride;
    }
};

}  // namespace yaie::merge_states_n
