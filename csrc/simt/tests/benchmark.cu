// What the executor costs: prints nanoseconds per switch and thread, microseconds per launch.
// Host only.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "simt/memory.h"
#include "simt/simt.h"

namespace {

__global__ void empty() {}

__global__ void shuffles(float* out, int rounds) {
    float v = float(threadIdx.x);
    for (int i = 0; i < rounds; ++i) v = __shfl_xor_sync(0xffffffffu, v, 1);
    if (v < 0) *out = v;
}

__global__ void barriers(int rounds) {
    for (int i = 0; i < rounds; ++i) __syncthreads();
}

__global__ void writes(float* out) { out[blockIdx.x * blockDim.x + threadIdx.x] = 1.0f; }

__global__ void shared_tile(float* out) {
    SIMT_SHARED(float, tile, [256]);
    tile[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = tile[255 - threadIdx.x];
}

// The least of several measurements, in nanoseconds: other work on the machine only adds.
template <class Function>
double nanoseconds(Function function) {
    double least = 1e30;
    for (int i = 0; i < 15; ++i) {
        const auto start = std::chrono::steady_clock::now();
        function();
        const std::chrono::duration<double, std::nano> taken =
            std::chrono::steady_clock::now() - start;
        least = std::min(least, taken.count());
    }
    return least;
}

void measure_switches(const char* order) {
    float out;
    for (int threads : {32, 128, 256, 1024}) {
        constexpr int kRounds = 200;
        const double shuffle =
            nanoseconds([&] { SIMT_LAUNCH(shuffles, 1, threads, 0, nullptr, &out, kRounds); });
        const double barrier =
            nanoseconds([&] { SIMT_LAUNCH(barriers, 1, threads, 0, nullptr, kRounds); });
        std::printf("%-12s %4d threads: %6.1f ns per thread and shuffle, %6.1f and barrier\n",
                    order, threads, shuffle / kRounds / threads, barrier / kRounds / threads);
    }
}

void measure_launches() {
    static float out[1024 * 256];
    const double one = nanoseconds([] { SIMT_LAUNCH(empty, 1, 1, 0, nullptr); });
    const double warp = nanoseconds([] { SIMT_LAUNCH(empty, 1, 32, 0, nullptr); });
    const double tile = nanoseconds([] { SIMT_LAUNCH(shared_tile, 1, 256, 0, nullptr, out); });
    const double blocks = nanoseconds([] { SIMT_LAUNCH(empty, 1000, 1, 0, nullptr); });
    const double many = nanoseconds([] { SIMT_LAUNCH(writes, 1024, 256, 0, nullptr, out); });
    const double dynamic = nanoseconds([] { SIMT_LAUNCH(empty, 1, 1, 200 * 1024, nullptr); });
    std::printf(
        "launch: %.2f us with 1 thread, %.2f with a warp, %.2f with 200 KiB of shared memory\n",
        one / 1e3, warp / 1e3, dynamic / 1e3);
    std::printf("launch with a shared array, a barrier and 256 threads: %.2f us\n", tile / 1e3);
    std::printf("block: %.0f ns; thread without collectives: %.1f ns\n", blocks / 1000,
                many / 1024 / 256);
}

// ---- One access --------------------------------------------------------------------------------

constexpr int kAccesses = 100000;

// Volatile locals would be no access; so the sum depends on what was read.
__global__ void reads(const float* from, float* out, int mask) {
    float sum = 0;
    for (int i = 0; i < kAccesses; ++i) sum += from[(i * 33) & mask];
    *out = sum;
}

__global__ void writes_to(float* to, int mask) {
    for (int i = 0; i < kAccesses; ++i) to[(i * 33) & mask] = float(i);
}

__global__ void shared_reads(float* out, int mask) {
    SIMT_SHARED(float, value, [1024]);
    for (int i = 0; i <= mask; ++i) value[i] = 1.0f;
    float sum = 0;
    for (int i = 0; i < kAccesses; ++i) sum += value[(i * 33) & mask];
    *out = sum;
}

void measure_accesses() {
    static float input[1024], output[1024], sum[1];
#if defined(SIMT_CHECKED)
    const simt::Registered registered({{"input", input, 4, {1024}, {1}, simt::Role::input},
                                       {"output", output, 4, {1024}, {1}, simt::Role::inout},
                                       {"sum", sum, 4, {1}, {1}, simt::Role::inout}});
#endif
    const double read = nanoseconds([] { SIMT_LAUNCH(reads, 1, 1, 0, nullptr, input, sum, 1023); });
    const double reread =
        nanoseconds([] { SIMT_LAUNCH(reads, 1, 1, 0, nullptr, output, sum, 1023); });
    const double write =
        nanoseconds([] { SIMT_LAUNCH(writes_to, 1, 1, 0, nullptr, output, 1023); });
    const double shared =
        nanoseconds([] { SIMT_LAUNCH(shared_reads, 1, 1, 0, nullptr, sum, 1023); });
    std::printf(
        "ns an access: %.1f read of an input, %.1f of a tensor that is written as well, "
        "%.1f write, %.1f read of shared memory\n",
        read / kAccesses, reread / kAccesses, write / kAccesses, shared / kAccesses);
}

}  // namespace

// `benchmark accesses` prints what an access costs and no more.
int main(int arguments, char** argument) {
    measure_accesses();
    if (arguments > 1 && std::strcmp(argument[1], "accesses") == 0) return 0;
    measure_switches("round-robin");
    simt::set_schedule({simt::Policy::Random, 1, 1});
    measure_switches("random");
    simt::set_schedule({});
    measure_launches();
}
