// Warps hand values over: through numbered barriers, and through mbarriers.
#include "planted.h"

__global__ void numbered(int* out, int rounds) {
    SIMT_SHARED(int, value, [32]);
    const int lane = threadIdx.x % 32;
    for (int round = 0; round < rounds; ++round) {
        if (threadIdx.x < 32) {
            if (round > 0) simt::named_barrier_sync(2, 64);
            value[lane] = lane + round;
            simt::named_barrier_arrive(1, 64);
        } else {
            simt::named_barrier_sync(1, 64);
            out[round * 32 + lane] = value[31 - lane];
            if (round + 1 < rounds) simt::named_barrier_arrive(2, 64);
        }
    }
}

__global__ void through_mbarriers(int* out, int rounds) {
    SIMT_SHARED(uint64_t, full, );
    SIMT_SHARED(uint64_t, empty, );
    SIMT_SHARED(int, value, [32]);
    const int lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        simt::mbarrier_init(&full, 32);
        simt::mbarrier_init(&empty, 32);
    }
    __syncthreads();
    for (int round = 0; round < rounds; ++round) {
        if (threadIdx.x < 32) {
            if (round > 0) simt::mbarrier_wait(&empty, (round - 1) & 1);
            value[lane] = lane - round;
            simt::mbarrier_arrive(&full);
        } else {
            simt::mbarrier_wait(&full, round & 1);
            out[lane + 32 * round] = value[31 - lane];
            simt::mbarrier_arrive(&empty);
        }
    }
}

static void launch() {
    Tensor<int> out("out", {3, 32}, {}, simt::Role::result);
    SIMT_LAUNCH(numbered, 1, 64, 0, nullptr, out.data(), 3);
    SIMT_LAUNCH(through_mbarriers, 1, 64, 0, nullptr, out.data(), 3);
    out.check_result();
}

int main() { return run(launch); }
