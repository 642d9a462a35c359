// Kernels that the gate is tried on with a GPU, as micro.cpp is without one. Each of W threads
// computes some elements, those W apart. PADDING moves the code about and changes nothing else.
#include <cuda_runtime.h>

#ifdef PADDING
// Code of its own between the kernels, and more of it in each module: they are loaded elsewhere.
#define MOVE_CODE(name)                                                \
    __global__ void name##_padding(float* y) {                         \
        float t = y[threadIdx.x];                                      \
        _Pragma("unroll") for (int i = 0; i < 509; ++i) t = t * t + i; \
        y[threadIdx.x] = t;                                            \
    }
#else
#define MOVE_CODE(name)
#endif

constexpr int THREADS = 256;

// One kernel: BODY computes element `i` of n. Its launcher takes the stream as a pointer.
#define KERNEL(name, BODY)                                                                       \
    MOVE_CODE(name)                                                                              \
    __global__ void __launch_bounds__(THREADS)                                                   \
        name##_kernel(const float* __restrict__ x, float* __restrict__ y, long n) {              \
        const long workers = long(gridDim.x) * THREADS;                                          \
        for (long i = blockIdx.x * long(THREADS) + threadIdx.x; i < n; i += workers) {           \
            BODY                                                                                 \
        }                                                                                        \
    }                                                                                            \
    extern "C" __attribute__((visibility("default"))) int name(const float* x, float* y, long n, \
                                                               int blocks, void* stream) {       \
        name##_kernel<<<blocks, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(x, y, n);       \
        return int(cudaGetLastError());                                                          \
    }

KERNEL(axpy, y[i] = 1.5f * x[i] + y[i] * 0.25f;)
KERNEL(fill, y[i] = float(i);)
KERNEL(copy, y[i] = x[i];)
KERNEL(gather, y[i] = x[(unsigned(i) * 2654435761u) % unsigned(n)];)
KERNEL(reversed, y[i] = x[n - 1 - i];)
KERNEL(polynomial, {
    float t = x[i];
    for (int k = 0; k < 64; ++k) t = t * t - 0.5f;
    y[i] = t;
})
KERNEL(exponential, {
    float t = x[i];
    for (int k = 0; k < 32; ++k) t = __expf(-t);
    y[i] = t;
})
KERNEL(division, {
    float t = x[i];
    for (int k = 0; k < 16; ++k) t = 1.0f / (t + 1.5f);
    y[i] = t;
})
KERNEL(histogram, atomicAdd(&y[int(x[i] * 400.0f) & 8191], 1.0f);)
KERNEL(shuffle, {
    float t = x[i];
    for (int k = 0; k < 32; ++k) t += __shfl_xor_sync(__activemask(), t, 1 << k % 5);
    y[i] = t;
})
