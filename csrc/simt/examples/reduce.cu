// Sum of an array: shuffles within a warp, shared memory between warps, an atomic between blocks.
// Textbook CUDA but for the launch.
#include "array.h"

__global__ void reduce(const float* in, float* out, int n) {
    __shared__ float partial[32];
    float sum = 0.0f;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        sum += in[i];

    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(0xffffffff, sum, offset);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (lane == 0) partial[warp] = sum;
    __syncthreads();

    if (warp == 0) {
        sum = lane < blockDim.x / 32 ? partial[lane] : 0.0f;
        for (int offset = 16; offset > 0; offset /= 2)
            sum += __shfl_down_sync(0xffffffff, sum, offset);
        if (lane == 0) atomicAdd(out, sum);
    }
}

static bool example() {
    const int n = 10000;
    Array<float> in("in", n, simt::Role::input), out("out", 1, simt::Role::inout);
    float expected = 0;
    for (int i = 0; i < n; ++i) expected += in[i] = float(i % 7);
    SIMT_LAUNCH(reduce, 6, 128, 0, nullptr, in.data(), out.data(), n);
    wait_for_kernel();
    return out[0] == expected;
}

int main() { return run_example(example); }
