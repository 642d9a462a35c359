// Launch limits, schedules, poison, statistics. Host only.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <set>
#include <thread>

#include "check.h"

namespace {

__global__ void nothing() {}

template <class T, int N>
__global__ void templated(T* out, T value) {
    out[threadIdx.x] = value * T(N);
}

std::string refusal(dim3 grid, dim3 block, std::size_t shared_bytes) {
    try {
        SIMT_LAUNCH(nothing, grid, block, shared_bytes, nullptr);
    } catch (const simt::LaunchError& error) {
        CHECK_CONTAINS("kernel nothing launched at tests/launch_test.cu:",
                       std::string(error.what()));
        return error.kind();
    }
    return "";
}

TEST(cuda_limits_hold) {
    const std::string invalid = "invalid configuration";
    for (const dim3 empty : {dim3(0), dim3(1, 0), dim3(1, 1, 0)}) {
        CHECK_EQUAL(invalid, refusal(empty, dim3(1), 0));
        CHECK_EQUAL(invalid, refusal(dim3(1), empty, 0));
    }
    CHECK_EQUAL(invalid, refusal(dim3(0x80000000u), dim3(1), 0));
    CHECK_EQUAL(invalid, refusal(dim3(1, 65536), dim3(1), 0));
    CHECK_EQUAL(invalid, refusal(dim3(1, 1, 65536), dim3(1), 0));
    CHECK_EQUAL("", refusal(dim3(1, 65535), dim3(1), 0));
    CHECK_EQUAL(invalid, refusal(dim3(1), dim3(1025), 0));
    CHECK_EQUAL(invalid, refusal(dim3(1), dim3(1, 1, 65), 0));
    CHECK_EQUAL(invalid, refusal(dim3(1), dim3(32, 33), 0));
    CHECK_EQUAL("", refusal(dim3(1), dim3(16, 1, 64), 0));
    CHECK_EQUAL("", refusal(dim3(1), dim3(1), 227 * 1024));
    CHECK_EQUAL(invalid, refusal(dim3(1), dim3(1), 227 * 1024 + 1));
}

TEST(templates_and_conversions) {
    check::Buffer<float> out(4);
    RUN((templated<float, 3>), 1, 4, 0, out.data(), 2);
    for (std::size_t i = 0; i < 4; ++i) CHECK_EQUAL(6.0f, out[i]);
    try {
        SIMT_LAUNCH((templated<float, 3>), 0, 4, 0, nullptr, out.data(), 2);
    } catch (const simt::LaunchError& error) {
        CHECK_CONTAINS("kernel templated<float, 3> launched", std::string(error.what()));
    }
}

// ---- Shared memory ------------------------------------------------------------------------------

// What each block finds before it has written anything.
__global__ void find(float* single, __half* half_, double* dynamic) {
    SIMT_SHARED(float, a, [5]);
    SIMT_SHARED(__half, b, [3][7]);
    double* c = simt::dynamic_shared<double>(16);
    if (threadIdx.x == 0) {
        single[blockIdx.x] = a[4];
        half_[blockIdx.x] = b[2][6];
        dynamic[blockIdx.x] = c[999];
    }
    __syncthreads();
    a[4] = 1.0f;
    b[2][6] = __half(1.0f);
    c[999] = 1.0;
}

TEST(shared_memory_starts_as_nan_in_every_block) {
    if (simt::is_checked()) return;  // which does not let it pass
    check::under_all_schedules([] {
        check::Buffer<float> a(20);
        check::Buffer<__half> b(20);
        check::Buffer<double> c(20);
        RUN(find, 20, 32, 16 + 8000, a.data(), b.data(), c.data());
        for (std::size_t i = 0; i < 20; ++i) {
            CHECK(std::isnan(a[i]));
            CHECK(std::isnan(float(b[i])));
            CHECK(std::isnan(c[i]));
        }
    });
}

__global__ void addresses(int* out) {
    SIMT_SHARED(char, a, [3]);
    SIMT_SHARED(double, b, [2]);
    const auto dynamic = reinterpret_cast<uintptr_t>(simt::dynamic_shared<char>());
    out[0] = dynamic % 128 == 0;
    out[1] = reinterpret_cast<uintptr_t>(&b) % alignof(double) == 0;
    out[2] = static_cast<void*>(&a) != static_cast<void*>(&b);
}

TEST(shared_arrays_are_aligned_and_apart) {
    check::Buffer<int> out(3);
    RUN(addresses, 1, 1, 64, out.data());
    for (std::size_t i = 0; i < 3; ++i) CHECK_EQUAL(1, out[i]);
}

// Ordinary `__shared__` works as well, without poison.
__global__ void plain_shared(int* out) {
    __shared__ int value[64];
    value[threadIdx.x] = int(threadIdx.x + blockIdx.x);
    __syncthreads();
    out[blockIdx.x * 64 + threadIdx.x] = value[63 - threadIdx.x];
}

TEST(plain_shared_memory) {
    check::under_all_schedules([] {
        check::Buffer<int> out(64 * 50);
        RUN(plain_shared, 50, 64, 0, out.data());
        for (int i = 0; i < 64 * 50; ++i) CHECK_EQUAL(63 - i % 64 + i / 64, out[std::size_t(i)]);
    });
}

// ---- Schedules ----------------------------------------------------------------------------------

// In which order threads of all blocks pass a point.
__global__ void pass(int* order, int* next) {
    __syncthreads();
    order[atomicAdd(next, 1)] = int(blockIdx.x * blockDim.x + threadIdx.x);
}

std::vector<int> order_of(const simt::Schedule& schedule, int blocks, int threads) {
    simt::set_schedule(schedule);
    check::Buffer<int> order{std::size_t(blocks * threads)}, next(1);
    RUN(pass, blocks, threads, 0, order.data(), next.data());
    simt::set_schedule({});
    return order.copy();
}

TEST(reverse_starts_with_the_last_block) {
    CHECK_EQUAL(0, order_of({simt::Policy::RoundRobin, 0, 1}, 5, 40).front() / 40);
    CHECK_EQUAL(4, order_of({simt::Policy::Reverse, 0, 1}, 5, 40).front() / 40);
    CHECK_EQUAL(0, order_of({simt::Policy::Reverse, 0, 1}, 5, 40).back() / 40);
}

TEST(a_seed_is_a_schedule) {
    std::set<std::vector<int>> different;
    for (uint64_t seed = 0; seed < 20; ++seed) {
        const simt::Schedule schedule{simt::Policy::Random, seed, 1};
        const std::vector<int> order = order_of(schedule, 3, 70);
        CHECK(order == order_of(schedule, 3, 70));
        different.insert(order);
        std::vector<int> sorted = order;
        std::sort(sorted.begin(), sorted.end());
        for (int i = 0; i < 210; ++i) CHECK_EQUAL(i, sorted[std::size_t(i)]);
    }
    CHECK_EQUAL(std::size_t(20), different.size());
}

// Threads of one block in the order in which they take a ticket: no other block can interfere.
__global__ void ticket_order(int* order, int rounds) {
    SIMT_SHARED(int, next, );
    if (threadIdx.x == 0) next = 0;
    __syncthreads();
    for (int i = 0; i < rounds; ++i) {
        __syncwarp();
        const int ticket = atomicAdd(&next, 1);
        order[blockIdx.x * blockDim.x * unsigned(rounds) + unsigned(ticket)] = int(threadIdx.x);
    }
}

TEST(os_threads_do_not_change_a_schedule) {
    for (simt::Policy policy :
         {simt::Policy::RoundRobin, simt::Policy::Reverse, simt::Policy::Random}) {
        std::vector<int> first;
        simt::Stats counted[2];
        for (int threads : {1, 2}) {
            simt::set_schedule({policy, 42, threads});
            const simt::Stats before = simt::stats();
            check::Buffer<int> order(300 * 64 * 3);
            RUN(ticket_order, 300, 64, 0, order.data(), 3);
            simt::Stats& now = counted[threads - 1] = simt::stats();
            now.switches -= before.switches;
            now.collectives -= before.collectives;
            if (first.empty()) first = order.copy();
            CHECK(first == order.copy());
        }
        CHECK_EQUAL(counted[0].switches, counted[1].switches);
        CHECK_EQUAL(uint64_t(300 * 2 * 3), counted[0].collectives);
        CHECK_EQUAL(counted[0].collectives, counted[1].collectives);
    }
    simt::set_schedule({});
}

__global__ void note_os_thread(std::atomic<int>* seen, std::atomic<int>* count) {
    static std::atomic<int> next{1};
    static thread_local const int mine = next++;
    for (volatile int i = 0; i < 2000; ++i) {
    }
    if (!seen[mine % 64].exchange(1)) ++*count;
}

TEST(long_launches_get_helpers) {
    if (simt::is_checked()) return;  // one OS thread, and std::atomic is no part of CUDA
    std::atomic<int> seen[64] = {}, count{0};
    simt::set_schedule({simt::Policy::RoundRobin, 0, 2});
    RUN(note_os_thread, 20000, 1, 0, seen, &count);
    simt::set_schedule({});
    CHECK_EQUAL(2, count.load());
}

TEST(every_block_runs_once_in_random_order) {
    for (int blocks : {1, 2, 3, 17, 64, 1000}) {
        const std::vector<int> order = order_of({simt::Policy::Random, 5, 1}, blocks, 1);
        CHECK_EQUAL(std::size_t(blocks), std::set<int>(order.begin(), order.end()).size());
    }
}

TEST(statistics_count) {
    const simt::Stats before = simt::stats();
    check::Buffer<int> order(2 * 64), next(1);
    RUN(pass, 2, 64, 0, order.data(), next.data());
    const simt::Stats after = simt::stats();
    CHECK_EQUAL(uint64_t(1), after.launches - before.launches);
    CHECK_EQUAL(uint64_t(2), after.blocks - before.blocks);
    CHECK_EQUAL(uint64_t(128), after.threads - before.threads);
    CHECK_EQUAL(uint64_t(2), after.barriers - before.barriers);
    CHECK_EQUAL(uint64_t(0), after.collectives - before.collectives);
    CHECK_EQUAL(simt::is_checked(), after.accesses > before.accesses);
}

// ---- Processes and threads ----------------------------------------------------------------------

TEST(launches_from_several_os_threads) {
    std::vector<std::thread> callers;
    std::atomic<int> right{0};
    for (int t = 0; t < 4; ++t) {
        callers.emplace_back([&] {
            for (int i = 0; i < 20; ++i) {
                int order[128], next = 0;
                SIMT_LAUNCH(pass, 2, 64, 0, nullptr, order, &next);
                right += next == 128;
            }
        });
    }
    for (std::thread& caller : callers) caller.join();
    CHECK_EQUAL(80, right.load());
}

TEST(a_forked_child_can_launch) {
    const simt::Schedule two{simt::Policy::RoundRobin, 0, 2};
    order_of(two, 500, 64);
    const pid_t child = fork();
    if (child == 0) _exit(order_of(two, 500, 64).size() == 500 * 64 ? 0 : 1);
    int status = -1;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

__global__ void large_frame(int* out) {
    volatile char local[48 * 1024];
    for (std::size_t i = 0; i < sizeof local; i += 512) local[i] = char(threadIdx.x);
    __syncthreads();
    out[threadIdx.x] = local[512] + local[sizeof local - 512];
}

TEST(stacks_hold_48_KiB_of_locals) {
    check::Buffer<int> out(64);
    RUN(large_frame, 1, 64, 0, out.data());
    for (int i = 0; i < 64; ++i) CHECK_EQUAL(2 * i, out[std::size_t(i)]);
}

}  // namespace
