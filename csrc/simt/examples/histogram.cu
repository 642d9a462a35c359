// Counts bytes: each block in shared memory, then all of them in global memory. The number of bins is
// known at the launch only, so the shared memory is dynamic: that and the launch differ from the
// textbook.
#include "array.h"

__global__ void histogram(const unsigned char* in, int n, unsigned* bins, int count) {
    unsigned* local = simt::dynamic_shared<unsigned>();  // extern __shared__ unsigned local[];
    for (int i = threadIdx.x; i < count; i += blockDim.x) local[i] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(&local[in[i]], 1);
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += blockDim.x) atomicAdd(&bins[i], local[i]);
}

static bool example() {
    const int n = 5000, count = 100;
    Array<unsigned char> in("in", n, simt::Role::input);
    Array<unsigned> bins("bins", count, simt::Role::inout);
    std::vector<unsigned> expected(count);
    for (int i = 0; i < n; ++i) {
        in[i] = (unsigned char)(i * i % count);
        ++expected[in[i]];
    }
    SIMT_LAUNCH(histogram, 5, 64, count * sizeof(unsigned), nullptr, in.data(), n, bins.data(),
                count);
    wait_for_kernel();
    for (int i = 0; i < count; ++i)
        if (bins[i] != expected[i]) return false;
    return true;
}

int main() { return run_example(example); }
