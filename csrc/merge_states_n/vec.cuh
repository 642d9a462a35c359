// merge_states_n, step 2: one pass over the states in the widest words that alignment allows, and,
// where there are many, split over slices of a block.
//
// A thread keeps a running merge of the states slice, slice + slices, ...: it asks for kInFlight
// words and their log-sum-exps at once, and moves what it has to the new maximum once for all of
// them. The slices of a row meet in shared memory, in the order of their numbers, so that the bits
// depend on K and D alone: not on the batch, and not on which thread came first.
#pragma once

#include "merge_states_n/states.cuh"

namespace yaie::merge_states_n {

constexpr int kThreads = 256;
constexpr int kInFlight = 4;  // states that a thread asks for at once

template <int N>
struct Running {
    float most = -INFINITY;  // largest lse so far
    float total = 0.0f;      // sum of exp(lse - most)
    float sum[N] = {};       // likewise of exp(lse - most) * out
};

template <int N>
__device__ void rescale(Running<N>& to, float most) {
    const float scale = merging::weight(to.most, most);
    to.total *= scale;
#pragma unroll
    for (int i = 0; i < N; ++i) to.sum[i] *= scale;
    to.most = most;
}

// The states first, first + step, ... of one word of one row.
template <class T, class Word>
__device__ Running<Packed<T, Word>::kCount> merged(const States& states, int64_t token, int head,
                                                   int w, int first, int step) {
    constexpr int N = Packed<T, Word>::kCount;
    Running<N> running;
    for (int k = first; k < states.count; k += kInFlight * step) {
        // pass 1: loads
        Word word[kInFlight];
        float lse[kInFlight], most = running.most;
#pragma unroll
        for (int j = 0; j < kInFlight; ++j) {
            lse[j] = -INFINITY;
            if (k + j * step >= states.count) continue;
            lse[j] = states.lse_at(k + j * step, token, head);
            word[j] = reinterpret_cast<const Word*>(states.at<T>(k + j * step, token, head))[w];
        }
        // pass 2: what is there so far moves to the new maximum
#pragma unroll
        for (int j = 0; j < kInFlight; ++j) most = fmaxf(most, lse[j]);
        rescale(running, most);
        // pass 3: the new ones, but for those that saw no key
#pragma unroll
        for (int j = 0; j < kInFlight; ++j) {
            const float weight = merging::weight(lse[j], most);
            if (!(weight > 0.0f)) continue;
            float value[N];
            unpack<T>(value, word[j]);
            running.total += weight;
#pragma unroll
            for (int i = 0; i < N; ++i) running.sum[i] += weight * value[i];
        }
    }
    return running;
}

// Joins the slices of every word in its slice 0. Columns of shared memory are threads.
template <int N>
struct Meeting {
    float (&sum)[N][kThreads];
    float (&most)[kThreads];
    float (&total)[kThreads];

    __device__ void join(Running<N>& running, int thread, int apart, int slice, int slices) const {
        most[thread] = running.most;
        total[thread] = running.total;
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i][thread] = running.sum[i];
        __syncthreads();
        if (slice > 0) return;
        float all = running.most;
        for (int s = 1; s < slices; ++s) all = fmaxf(all, most[thread + s * apart]);
        rescale(running, all);
        for (int s = 1; s < slices; ++s) {
            const int other = thread + s * apart;
            const float weight = merging::weight(most[other], all);
            running.total += weight * total[other];
#pragma unroll
            for (int i = 0; i < N; ++i) running.sum[i] += weight * sum[i][other];
        }
    }
};

// A block's threads are [heads, slices, words] = [z, y, x]; its grid is tokens times groups of heads.
// With several slices all words of a head fit into a block, and every thread has one.
template <class T, class Word>
__global__ void __launch_bounds__(kThreads)
    vec(States states, T* out, float* lse, unsigned groups) {
    constexpr int N = Packed<T, Word>::kCount;
    SIMT_SHARED(float, slice_sum, [N][kThreads]);
    SIMT_SHARED(float, slice_most, [kThreads]);
    SIMT_SHARED(float, slice_total, [kThreads]);
    const Meeting<N> meeting{slice_sum, slice_most, slice_total};
    const Heads& shape = states.first.out;
    const int64_t token = blockIdx.x / groups;
    const int head = static_cast<int>(blockIdx.x % groups * blockDim.z + threadIdx.z);
    const int slice = threadIdx.y, slices = blockDim.y, words = shape.dim / N;
    if (slices == 1 && head >= shape.heads) return;

    const int64_t row = token * shape.heads + head;
    for (int w = threadIdx.x; w < words; w += blockDim.x) {
        Running<N> running;
        if (head < shape.heads) running = merged<T, Word>(states, token, head, w, slice, slices);
        if (slices > 1) {
            const int thread = (threadIdx.z * slices + slice) * blockDim.x + threadIdx.x;
            meeting.join(running, thread, blockDim.x, slice, slices);
        }
        if (slice > 0 || head >= shape.heads) continue;
        const float scale = running.total > 0.0f ? 1.0f / running.total : 0.0f;
#pragma unroll
        for (int i = 0; i < N; ++i) running.sum[i] *= scale;
        reinterpret_cast<Word*>(out)[row * words + w] = pack<T, Word>(running.sum);
        if (w == 0) lse[row] = merging::merged_lse(running.most, running.total);
    }
}

}  // namespace yaie::merge_states_n
