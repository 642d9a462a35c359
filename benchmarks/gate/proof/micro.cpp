// Kernels that the gate is tried on without a GPU. A build may be slowed down: EXTRA of 1000 elements
// are computed twice. PADDING moves the code about and changes nothing else, as any rebuild may.
#include <cmath>
#include <cstdint>
#include <vector>

#ifndef EXTRA
#define EXTRA 0
#endif

#ifdef PADDING
#define MOVE_CODE asm volatile(".skip 48, 0x90");
#else
#define MOVE_CODE
#endif

// One kernel: BODY computes the elements [0, count); the slow build computes the first ones again.
#define KERNEL(name, BODY)                                                                    \
    static __attribute__((noinline)) void name##_pass(const float* x, float* y, long count) { \
        MOVE_CODE                                                                             \
        BODY                                                                                  \
    }                                                                                         \
    extern "C" __attribute__((visibility("default"))) void name(const float* x, float* y,     \
                                                                long n) {                     \
        name##_pass(x, y, n);                                                                 \
        if (EXTRA) name##_pass(x, y, n * EXTRA / 1000);                                       \
    }

KERNEL(axpy, for (long i = 0; i < count; ++i) y[i] = 1.5f * x[i] + y[i] * 0.25f;)
KERNEL(
    polynomial, for (long i = 0; i < count; ++i) {
        const float t = x[i];
        y[i] = ((((0.1f * t + 0.2f) * t + 0.3f) * t + 0.4f) * t + 0.5f) * t + 1.0f;
    })
KERNEL(dot, {
    float sum = 0;
    for (long i = 0; i < count; ++i) sum += x[i] * x[i];
    y[0] = sum;
})
KERNEL(scan, {
    float sum = 0;
    for (long i = 0; i < count; ++i) y[i] = sum = 0.5f * sum + x[i];
})
KERNEL(exponential, for (long i = 0; i < count; i += 4) y[i] = std::exp(x[i]);)
KERNEL(root, for (long i = 0; i < count; ++i) y[i] = std::sqrt(x[i] * x[i] + 1.0f);)
KERNEL(gather, {
    uint32_t at = 12345;
    for (long i = 0; i < count; ++i) {
        at = at * 1664525u + 1013904223u;
        y[i] = x[(uint64_t(at) * uint64_t(count)) >> 32];
    }
})
KERNEL(histogram, {
    int bins[256] = {};
    for (long i = 0; i < count; ++i) ++bins[int(x[i] * 40.0f) & 255];
    for (int b = 0; b < 256; ++b) y[b] = float(bins[b]);
})
KERNEL(strided, {
    for (long s = 0; s < 16; ++s)
        for (long i = s; i < count; i += 16) y[i] = x[i] * 2.0f - 1.0f;
})
KERNEL(branches, {
    float sum = 0;
    for (long i = 0; i < count; ++i) sum += x[i] > 0 ? x[i] : std::fabs(x[i]) * 0.5f;
    y[0] = sum;
})
