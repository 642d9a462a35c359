// The last block to finish adds up what the others left, and a compaction by ballot.
#include "planted.h"

__global__ void last_block_sum(const float* in, int n, float* partial, unsigned* done, float* out) {
    SIMT_SHARED(float, value, [64]);
    SIMT_SHARED(bool, is_last, );
    float sum = 0;
    for (int i = blockIdx.x * 64 + threadIdx.x; i < n; i += gridDim.x * 64) sum += in[i];
    value[threadIdx.x] = sum;
    __syncthreads();
    for (int d = 32; d > 0; d /= 2) {
        if (threadIdx.x < d) value[threadIdx.x] += value[threadIdx.x + d];
        __syncthreads();  // of the tree
    }
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = value[0];
        __threadfence();
        is_last = atomicAdd(done, 1) == gridDim.x - 1;
    }
    __syncthreads();  // before is_last is read
    if (is_last && threadIdx.x == 0) {
        float total = 0;
        for (int b = 0; b < gridDim.x; ++b) total += partial[b];
        *out = total;
    }
}

// Keeps the positive numbers: lanes of a warp take neighbouring places, warps reserve them.
__global__ void compact(const int* in, int n, int* out, int* count) {
    SIMT_SHARED(int, first, [2]);
    const int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32;
    const int value = i < n ? in[i] : 0;
    const unsigned kept = __ballot_sync(0xffffffff, value > 0);
    if (lane == 0) first[threadIdx.x / 32] = atomicAdd(count, __popc(kept));
    __syncwarp();
    const int before = __popc(kept & ((1u << lane) - 1));
    if (value > 0) out[first[threadIdx.x / 32] + before] = value;
}

static void launch() {
    const int n = 1000, blocks = 7;
    Tensor<float> in("in", {n}, {}, simt::Role::input), out("out", {1}, {}, simt::Role::result);
    Tensor<float> partial("partial", {blocks}, {}, simt::Role::workspace);
    Tensor<unsigned> done("done", {1});
    SIMT_LAUNCH(last_block_sum, blocks, 64, 0, nullptr, in.data(), n, partial.data(), done.data(),
                out.data());
    out.check_result();
    Tensor<int> numbers("numbers", {100}, {}, simt::Role::input);
    Tensor<int> kept("kept", {50}), count("count", {1});
    for (int i = 0; i < 100; ++i) numbers.values()[i] = i % 2;
    SIMT_LAUNCH(compact, 2, 64, 0, nullptr, numbers.data(), 100, kept.data(), count.data());
}

int main() { return run(launch); }
