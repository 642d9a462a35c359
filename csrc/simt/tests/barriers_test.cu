// Block barriers, with whole and partial warps.
#include "check.h"

namespace {

// Each round every thread reads what its neighbour wrote in the round before.
__global__ void rotate(int* out, int rounds) {
    SIMT_SHARED(int, value, [1024]);
    const unsigned n = blockDim.x;
    value[threadIdx.x] = int(threadIdx.x);
    __syncthreads();
    for (int i = 0; i < rounds; ++i) {
        const int next = value[(threadIdx.x + 1) % n];
        __syncthreads();
        value[threadIdx.x] = next;
        __syncthreads();
    }
    out[blockIdx.x * n + threadIdx.x] = value[threadIdx.x];
}

__global__ void reductions(int* count, int* every, int* some, int limit) {
    const bool below = int(threadIdx.x) < limit;
    const int c = __syncthreads_count(below ? 7 : 0);
    const int a = __syncthreads_and(below ? 2 : 0);
    const int o = __syncthreads_or(below ? 4 : 0);
    count[threadIdx.x] = c;
    every[threadIdx.x] = a != 0;
    some[threadIdx.x] = o != 0;
}

__global__ void indices(int* out) {
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    __syncthreads();
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] += int(block * 1000 + thread);
}

TEST(every_thread_waits_for_every_other) {
    check::under_all_schedules([] {
        for (int threads : {1, 2, 31, 32, 33, 96, 250, 256, 1024}) {
            const int blocks = 4, rounds = 5;
            check::Buffer<int> out(std::size_t(blocks * threads));
            RUN(rotate, blocks, threads, 0, out.data(), rounds);
            for (int i = 0; i < blocks * threads; ++i)
                CHECK_EQUAL((i % threads + rounds) % threads, out[std::size_t(i)]);
        }
    });
}

TEST(predicates_are_reduced_over_the_block) {
    check::under_all_schedules([] {
        for (int threads : {1, 32, 45, 128}) {
            for (int limit : {0, 1, threads - 1, threads}) {
                check::Buffer<int> count{std::size_t(threads)}, every{std::size_t(threads)},
                    some{std::size_t(threads)};
                RUN(reductions, 1, threads, 0, count.data(), every.data(), some.data(), limit);
                for (std::size_t i = 0; i < std::size_t(threads); ++i) {
                    CHECK_EQUAL(limit, count[i]);
                    CHECK_EQUAL(int(limit == threads), every[i]);
                    CHECK_EQUAL(int(limit > 0), some[i]);
                }
            }
        }
    });
}

TEST(blocks_and_grids_have_three_axes) {
    check::under_all_schedules([] {
        const dim3 grid(3, 4, 5), block(5, 3, 7);
        check::Buffer<int> out(60 * 105);
        RUN(indices, grid, block, 0, out.data());
        for (int i = 0; i < 60 * 105; ++i)
            CHECK_EQUAL(i / 105 * 1000 + i % 105, out[std::size_t(i)]);
    });
}

}  // namespace
