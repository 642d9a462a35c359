// Every fault is reported with its kind, block, thread and lines. Host only.
#include <stdexcept>

#include "check.h"

namespace {

constexpr unsigned kAll = 0xffffffffu;

std::string line(int number) { return "faults_test.cu:" + std::to_string(number); }

struct Caught {
    std::string kind, message;
};

template <class Function>
Caught caught(Function launch) {
    try {
        launch();
    } catch (const simt::LaunchError& error) {
        return {error.kind(), error.what()};
    }
    return {"none", ""};
}

#define CHECK_FAULT(expected_kind, launch, ...) \
    check_fault(expected_kind, caught([&] { launch; }), {__VA_ARGS__}, __LINE__)

void check_fault(const std::string& kind, const Caught& caught,
                 const std::vector<std::string>& parts, int at) {
    check::equal(kind, caught.kind, "kind", __FILE__, at);
    for (const std::string& part : parts) check::contains(part, caught.message, __FILE__, at);
}

// ---- Barriers -----------------------------------------------------------------------------------

constexpr int kTwoBarriers = __LINE__;
__global__ void two_barriers() {
    if (threadIdx.x < 40)
        __syncthreads();
    else
        __syncthreads();
}

constexpr int kBarrierAfterExit = __LINE__;
__global__ void barrier_after_exit(int n) {
    if (int(threadIdx.x) >= n) return;
    __syncthreads();
}

TEST(divergent_barrier) {
    check::under_all_schedules([] {
        CHECK_FAULT("divergent barrier", RUN(two_barriers, 3, 64, 0), "kernel two_barriers",
                    "block (", "thread (", line(kTwoBarriers + 3), line(kTwoBarriers + 5));
    });
    CHECK_FAULT("divergent barrier", RUN(two_barriers, 3, 64, 0), "block (0,0,0)",
                "thread (40,0,0) (warp 1, lane 8)", "thread (0,0,0) waits in __syncthreads");
}

TEST(barrier_after_exit_of_some_threads) {
    check::under_all_schedules([] {
        for (int n : {1, 31, 32, 63})
            CHECK_FAULT("barrier after exit", RUN(barrier_after_exit, 1, 64, 0, n),
                        line(kBarrierAfterExit + 3), std::to_string(64 - n) + " of 64 threads");
        CHECK_FAULT("none", RUN(barrier_after_exit, 1, 64, 0, 64), "");
        CHECK_FAULT("none", RUN(barrier_after_exit, 1, 64, 0, 0), "");
    });
}

// ---- Warp collectives ---------------------------------------------------------------------------

constexpr int kTwoCollectives = __LINE__;
__global__ void two_collectives(int* out) {
    int v = 0;
    if (threadIdx.x < 16)
        v = __shfl_xor_sync(kAll, v, 1);
    else
        v = int(__ballot_sync(kAll, 1));
    out[threadIdx.x] = v;
}

constexpr int kTwoMasks = __LINE__;
__global__ void two_masks() {
    const unsigned mask = threadIdx.x < 16 ? kAll : 0xffff0001u;
    __syncwarp(mask);
}

constexpr int kNotInMask = __LINE__;
__global__ void not_in_mask() {
    if (threadIdx.x == 7) __syncwarp(0xffu & ~(1u << 7));
}

constexpr int kExitedInMask = __LINE__;
__global__ void exited_in_mask() {
    if (threadIdx.x == 3) return;
    __syncwarp();
}

constexpr int kInactiveSource = __LINE__;
__global__ void inactive_source(int* out) {
    if (threadIdx.x < 16) out[threadIdx.x] = __shfl_down_sync(0xffffu, int(threadIdx.x), 8);
}

constexpr int kMissingSource = __LINE__;
__global__ void missing_source(int* out) {
    out[threadIdx.x] = __shfl_xor_sync(kAll, int(threadIdx.x), 16);
}

constexpr int kBadWidth = __LINE__;
__global__ void bad_width(int* out) { out[threadIdx.x] = __shfl_xor_sync(kAll, 1, 1, 12); }

TEST(collectives_that_do_not_match) {
    check::under_all_schedules([] {
        check::Buffer<int> out(32);
        CHECK_FAULT("divergent collective", RUN(two_collectives, 1, 32, 0, out.data()),
                    line(kTwoCollectives + 4), line(kTwoCollectives + 6), "__shfl_xor_sync",
                    "__ballot_sync", "0xffffffff");
        CHECK_FAULT("divergent collective", RUN(two_masks, 1, 32, 0), line(kTwoMasks + 3),
                    "0xffff0001", "0xffffffff");
    });
}

TEST(masks_that_lie) {
    check::under_all_schedules([] {
        CHECK_FAULT("bad mask", RUN(not_in_mask, 2, 32, 0), line(kNotInMask + 2),
                    "thread (7,0,0) (warp 0, lane 7)", "0x0000007f", "lacks the calling lane");
        CHECK_FAULT("exited lane in mask", RUN(exited_in_mask, 1, 32, 0), line(kExitedInMask + 3),
                    "0xffffffff");
    });
}

TEST(shuffles_from_nowhere) {
    check::under_all_schedules([] {
        check::Buffer<int> out(32);
        CHECK_FAULT("shuffle from inactive lane", RUN(inactive_source, 1, 32, 0, out.data()),
                    line(kInactiveSource + 2), "outside the mask", "0x0000ffff");
        CHECK_FAULT("shuffle from inactive lane", RUN(missing_source, 1, 20, 0, out.data()),
                    line(kMissingSource + 2), "which the block does not have");
        CHECK_FAULT("bad width", RUN(bad_width, 1, 32, 0, out.data()), line(kBadWidth + 1));
    });
}

// ---- Deadlock -----------------------------------------------------------------------------------

constexpr int kDeadlock = __LINE__;
__global__ void deadlock() {
    if (threadIdx.x == 33)
        __syncwarp();
    else
        __syncthreads();
}

TEST(deadlock_says_who_waits_where) {
    check::under_all_schedules([] {
        CHECK_FAULT("deadlock", RUN(deadlock, 1, 64, 0), line(kDeadlock + 3), line(kDeadlock + 5),
                    "lanes 0x00000002 of warp 1 wait in __syncwarp", "63 wait in __syncthreads");
    });
}

// ---- Exceptions, traps, limits ------------------------------------------------------------------

struct CountsLives {
    explicit CountsLives(int* lives) : lives(lives) { ++*lives; }
    ~CountsLives() { --*lives; }
    int* lives;
};

__global__ void throws(int* lives) {
    const CountsLives alive(lives);
    if (blockIdx.x == 1 && threadIdx.x == 2) throw std::runtime_error("no such page");
}

__global__ void throws_an_int() {
    __syncthreads();
    if (threadIdx.x == 1) throw 5;
}

constexpr int kTrap = __LINE__;
__global__ void traps() {
    if (threadIdx.x == 1) __trap();
}

TEST(exceptions_become_launch_errors) {
    check::under_all_schedules([] {
        int lives = 0;
        CHECK_FAULT("exception", RUN(throws, 3, 4, 0, &lives), "no such page", "block (1,0,0)",
                    "thread (2,0,0)");
        CHECK_EQUAL(0, lives);
        CHECK_FAULT("exception", RUN(throws_an_int, 1, 32, 0), "thread (1,0,0)");
        CHECK(!std::current_exception());
        CHECK_FAULT("trap", RUN(traps, 1, 2, 0), line(kTrap + 2));
    });
}

__global__ void nested() { SIMT_LAUNCH(traps, 1, 1, 0, nullptr); }

TEST(nested_launches_are_refused) {
    CHECK_FAULT("exception", RUN(nested, 1, 1, 0), "nested launch");
}

constexpr int kPastTheEnd = __LINE__;
__global__ void past_the_end(int index) {
    SIMT_SHARED(char, before, [3]);
    SIMT_SHARED(float, tile, [33]);
    SIMT_SHARED(char, after, [3]);
    if (threadIdx.x == 0) before[0] = after[0] = 0;
    volatile float* p = tile;
    p[index] = -1.0f;
}

__global__ void past_dynamic(int index) {
    volatile unsigned char* bytes = simt::dynamic_shared<unsigned char>();
    bytes[index] = 0xff;
}

TEST(writes_outside_shared_arrays) {
    if (simt::is_checked()) return;  // found at the access: checked_test
    check::under_all_schedules([] {
        const std::string at = line(kPastTheEnd + 3);
        CHECK_FAULT("none", RUN(past_the_end, 2, 2, 0, 32), "");
        CHECK_FAULT("shared memory overrun", RUN(past_the_end, 2, 2, 0, 33), "'tile'", at,
                    "byte offset 132, element 33");
        CHECK_FAULT("shared memory overrun", RUN(past_the_end, 2, 2, 0, -1), "'tile'", at,
                    "byte offset -4");
        CHECK_FAULT("none", RUN(past_dynamic, 2, 2, 100, 99), "");
        CHECK_FAULT("shared memory overrun", RUN(past_dynamic, 2, 2, 100, 100),
                    "dynamic shared memory (100 bytes)", "byte offset 100");
        CHECK_FAULT("shared memory overrun", RUN(past_dynamic, 2, 2, 100, -1), "byte offset -1");
    });
}

constexpr int kTooLarge = __LINE__;
__global__ void too_large() {
    SIMT_SHARED(float, tile, [48 * 256 + 1]);
    tile[0] = 0;
}

__global__ void asks_for_dynamic(int offset) {
    *simt::dynamic_shared<float>(std::size_t(offset)) = 0;
}

TEST(limits_of_shared_memory) {
    CHECK_FAULT("shared memory limit", RUN(too_large, 1, 1, 0), "'tile'", line(kTooLarge + 2));
    CHECK_FAULT("none", RUN(asks_for_dynamic, 1, 1, 16, 12), "");
    CHECK_FAULT("dynamic shared memory", RUN(asks_for_dynamic, 1, 1, 16, 20), "offset 20 of 16");
    CHECK_FAULT("dynamic shared memory", RUN(asks_for_dynamic, 1, 1, 16, 6), "alignment 4");
}

// ---- Alignment ----------------------------------------------------------------------------------

constexpr int kCopies = __LINE__;
template <int bytes>
__global__ void copies(const char* in, int to, int from) {
    SIMT_SHARED(uint4, tile, [4]);
    simt::cp_async<bytes>(reinterpret_cast<char*>(tile) + to, in + from);
    simt::cp_async_wait_all();
}

constexpr int kMatrixRows = __LINE__;
template <bool stores>
__global__ void matrix_rows(int offset) {
    SIMT_SHARED(uint4, tile, [10]);
    uint32_t r[1] = {};
    if (threadIdx.x < 10) tile[threadIdx.x] = make_uint4(0, 0, 0, 0);
    __syncwarp();
    char* row = reinterpret_cast<char*>(tile + threadIdx.x % 8) + offset;
    if (stores)
        simt::stmatrix<1>(row, r);
    else
        simt::ldmatrix<1>(r, row);
}

__global__ void shifted_mbarrier(int offset) {
    SIMT_SHARED(uint64_t, barriers, [2]);
    simt::mbarrier_init(reinterpret_cast<uint64_t*>(reinterpret_cast<char*>(barriers) + offset), 1);
}

TEST(misaligned_accesses_of_instructions) {
    alignas(16) static const char in[64] = {};
    CHECK_FAULT("none", RUN(copies<16>, 1, 1, 0, in, 16, 32), "");
    CHECK_FAULT("none", RUN(copies<4>, 1, 1, 0, in, 4, 12), "");
    CHECK_FAULT("misaligned access", RUN(copies<16>, 1, 1, 0, in, 8, 0), line(kCopies + 4),
                "multiple of 16", "thread (0,0,0)");
    CHECK_FAULT("misaligned access", RUN(copies<16>, 1, 1, 0, in, 0, 8), line(kCopies + 4));
    CHECK_FAULT("misaligned access", RUN(copies<8>, 1, 1, 0, in, 0, 4), line(kCopies + 4));
    CHECK_FAULT("misaligned access", RUN(copies<4>, 1, 1, 0, in, 2, 0), line(kCopies + 4));
    CHECK_FAULT("none", RUN(matrix_rows<false>, 1, 32, 0, 0), "");
    CHECK_FAULT("none", RUN(matrix_rows<true>, 1, 32, 0, 16), "");
    CHECK_FAULT("misaligned access", RUN(matrix_rows<false>, 1, 32, 0, 8), line(kMatrixRows + 11),
                "multiple of 16");
    CHECK_FAULT("misaligned access", RUN(matrix_rows<true>, 1, 32, 0, 2), line(kMatrixRows + 9),
                "multiple of 16");
    CHECK_FAULT("none", RUN(shifted_mbarrier, 1, 1, 0, 8), "");
    CHECK_FAULT("misaligned access", RUN(shifted_mbarrier, 1, 1, 0, 4), "multiple of 8");
}

struct Destroyed {  // so that the kernel has something to unwind, were it told by an exception
    int* count;
    __device__ ~Destroyed() { ++*count; }
};

constexpr int kWideLoad = __LINE__;
__global__ void wide_accesses(const char* in, char* out, int* count) {
    const Destroyed destroyed{count};
    __syncthreads();
    const float4 both = *reinterpret_cast<const float4*>(in);
    *reinterpret_cast<double*>(out) = both.x;
}

TEST(misaligned_accesses_through_pointers) {
    alignas(16) static const char in[64] = {};
    alignas(16) static char out[64];
    check::Buffer<int> count(1);
    const auto run = [&](int from, int to) {
        return caught([&] { RUN(wide_accesses, 1, 1, 0, in + from, out + to, count.data()); });
    };
    check::under_all_schedules([&] {
        for (int i = 0; i < 50; ++i) {
            CHECK_EQUAL(std::string("none"), run(16, 8).kind);
            CHECK_EQUAL(std::string("misaligned access"), run(8, 8).kind);
            CHECK_EQUAL(std::string("misaligned access"), run(16, 4).kind);
        }
    });
    check_fault("misaligned access", run(4, 8), {line(kWideLoad + 4), "16"}, __LINE__);
    check_fault("misaligned access", run(16, 12), {line(kWideLoad + 5), "8"}, __LINE__);
}

// ---- After a fault ------------------------------------------------------------------------------

__global__ void count(int* counter) {
    __syncthreads();
    atomicAdd(counter, 1);
}

TEST(a_fault_leaves_nothing_behind) {
    check::under_all_schedules([] {
        for (int i = 0; i < 50; ++i) {
            check::Buffer<int> counter(1);
            CHECK_EQUAL(std::string("deadlock"), caught([] { RUN(deadlock, 1, 64, 0); }).kind);
            RUN(count, 8, 100, 0, counter.data());
            CHECK_EQUAL(800, counter[0]);
        }
    });
}

__global__ void late_fault(int* counter, int bad) {
    atomicAdd(counter, 1);
    if (int(blockIdx.x) == bad) __trap();
}

TEST(a_fault_stops_the_launch) {
    check::Buffer<int> counter(1);
    CHECK_FAULT("trap", RUN(late_fault, 1000, 1, 0, counter.data(), 10), "block (10,0,0)");
    CHECK_EQUAL(11, counter[0]);
}

}  // namespace
