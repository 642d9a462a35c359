// A shared object with a kernel and the executor, to be loaded at run time. Host only.
#include <cstdio>

#include "simt/simt.h"

namespace {

// Reverses n floats through dynamic shared memory.
__global__ void reverse(const float* in, float* out, int n) {
    float* staged = simt::dynamic_shared<float>();  // [n]
    for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) staged[i] = in[i];
    __syncthreads();
    for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) out[i] = staged[n - 1 - i];
}

}  // namespace

// 0, or 1 with the text of the error in `message`.
extern "C" __attribute__((visibility("default"))) int reverse_floats(const float* in, float* out,
                                                                     int n, char* message,
                                                                     int capacity) {
    try {
        SIMT_LAUNCH(reverse, 1, 256, std::size_t(n) * sizeof(float), nullptr, in, out, n);
        return 0;
    } catch (const simt::LaunchError& error) {
        std::snprintf(message, std::size_t(capacity), "%s", error.what());
        return 1;
    }
}
