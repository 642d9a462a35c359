// What the executor costs: prints nanoseconds per switch and thread, microseconds per launch.
// Host only.
#include <algorithm>
#include <chrono>
#include <cstdio>

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

}  // namespace

int main() {
    measure_switches("round-robin");
    simt::set_schedule({simt::Policy::Random, 1, 1});
    measure_switches("random");
    simt::set_schedule({});
    measure_launches();
}
