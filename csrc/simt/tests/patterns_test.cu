// Patterns of correct kernels in which the checked build must find nothing, whatever the order, each
// beside its nearest bugs, which it must find. Vacuous in other builds. Host only.
#define CHECK_REGISTERS_ITSELF  // what tensors there are is the subject
#include "check.h"
#include "simt/memory.h"

#if defined(SIMT_CHECKED)

namespace {

constexpr unsigned kAll = 0xffffffffu;

template <class T>
simt::Tensor tensor(const char* name, check::Buffer<T>& buffer,
                    simt::Role role = simt::Role::inout) {
    return {name, buffer.data(), sizeof(T), {int64_t(buffer.size())}, {1}, role};
}

// What is told of a launch; empty: nothing.
template <class Function>
std::string told(Function launch) {
    try {
        launch();
    } catch (const simt::LaunchError& error) {
        return error.what();
    }
    return "";
}

// Round-robin is the order of the least surprise: finding a bug there needs no luck.
#define CHECK_FOUND(kind, launch) CHECK_CONTAINS(": " kind " in block", told([&] { launch; }))
#define CHECK_CLEAN(launch) \
    check::under_all_schedules([&] { CHECK_EQUAL(std::string(), told([&] { launch; })); })

// ---- The last block adds up ---------------------------------------------------------------------

enum class Fence { none, all_before_barrier, first_after_barrier, first_before_barrier };

// All threads of a block write; one counts the block. All threads of the last block read.
__global__ void last_block(int* part, unsigned* done, int* out, Fence fence, bool reset) {
    SIMT_SHARED(bool, is_last, );
    const int t = int(threadIdx.x), threads = int(blockDim.x);
    part[int(blockIdx.x) * threads + t] = t;
    if (fence == Fence::all_before_barrier) __threadfence();
    if (fence == Fence::first_before_barrier && t == 0) __threadfence();
    __syncthreads();
    if (t == 0) {
        if (fence == Fence::first_after_barrier) __threadfence();
        is_last = atomicAdd(done, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!is_last) return;
    int sum = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) sum += part[int(b) * threads + t];
    out[t] = sum;
    if (reset && t == 0) *done = 0;
}

TEST(the_last_block) {
    check::Buffer<int> part(5 * 64), out(64);
    check::Buffer<unsigned> done(1);
    const simt::Registered registered(
        {tensor("part", part, simt::Role::workspace), tensor("done", done), tensor("out", out)});
    const auto run = [&](Fence fence, bool reset) {
        done[0] = 0;
        RUN(last_block, 5, 64, 0, part.data(), done.data(), out.data(), fence, reset);
    };
    for (const bool reset : {false, true}) {
        CHECK_CLEAN(run(Fence::all_before_barrier, reset));
        CHECK_CLEAN(run(Fence::first_after_barrier, reset));
    }
    CHECK_FOUND("race", run(Fence::none, false));
    CHECK_FOUND("race", run(Fence::first_before_barrier, false));
}

// The same with warps: the fence of all lanes, __syncwarp, an atomic by one.
__global__ void last_warp(int* part, unsigned* done, int* out, bool fence) {
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
    part[threadIdx.x] = lane;
    if (fence) __threadfence_block();
    __syncwarp();
    unsigned count = 0;
    if (lane == 0) count = atomicAdd(done, 1u);
    count = __shfl_sync(kAll, count, 0);
    __syncwarp();
    if (count % 4 != 3) return;
    for (int w = 0; w < 4; ++w) out[lane] += part[w * 32 + lane];
    static_cast<void>(warp);
}

TEST(the_last_warp) {
    check::Buffer<int> part(128), out(32);
    check::Buffer<unsigned> done(1);
    const simt::Registered registered(
        {tensor("part", part), tensor("done", done), tensor("out", out)});
    CHECK_CLEAN(RUN(last_warp, 1, 128, 0, part.data(), done.data(), out.data(), true));
    CHECK_FOUND("race", RUN(last_warp, 1, 128, 0, part.data(), done.data(), out.data(), false));
}

// ---- Locks and polling --------------------------------------------------------------------------

// One lane of each warp takes a lock that it waits for without __nanosleep.
__global__ void locked(int* lock, int* count, bool acquire, bool release) {
    if (threadIdx.x % 32 != 0) return;
    while (atomicCAS(lock, 0, 1) != 0) {
    }
    if (acquire) __threadfence();
    ++*count;
    if (release) __threadfence();
    atomicExch(lock, 0);
}

TEST(a_spin_lock) {
    check::Buffer<int> lock(1), count(1);
    const simt::Registered registered({tensor("lock", lock), tensor("count", count)});
    CHECK_CLEAN(RUN(locked, 3, 128, 0, lock.data(), count.data(), true, true));
    CHECK_FOUND("race", RUN(locked, 3, 128, 0, lock.data(), count.data(), true, false));
}

__global__ void wait_for_flag(volatile int* flag, int from, bool sleep) {
    if (int(threadIdx.x) == from) *flag = 1;
    if (threadIdx.x == 0)
        while (*flag == 0)
            if (sleep) __nanosleep(20);
}

TEST(polling) {
    check::Buffer<int> flag(1);
    const simt::Registered registered({tensor("flag", flag)});
    const auto run = [&](int from, bool sleep) {
        flag[0] = 0;
        RUN(wait_for_flag, 1, 64, 0, flag.data(), from, sleep);
    };
    CHECK_CLEAN(run(40, false));
    CHECK_CLEAN(run(40, true));
    CHECK_FOUND("deadlock", run(-1, false));
    CHECK_FOUND("deadlock", run(-1, true));
}

// Blocks take their number when they begin, so each waits for blocks that have begun.
__global__ void look_back(unsigned* ticket, int* sum, int* flag, bool fence) {
    const unsigned turn = atomicAdd(ticket, 1u);
    int before = 0;
    if (turn > 0) {
        while (atomicAdd(&flag[turn - 1], 0) == 0) {
        }
        before = sum[turn - 1];
    }
    sum[turn] = before + int(turn);
    if (fence) __threadfence();
    atomicExch(&flag[turn], 1);
}

TEST(decoupled_look_back) {
    check::Buffer<unsigned> ticket(1);
    check::Buffer<int> sum(8), flag(8);
    const simt::Registered registered({tensor("ticket", ticket), tensor("flag", flag),
                                       tensor("sum", sum, simt::Role::workspace)});
    const auto run = [&](bool fence) {
        ticket[0] = 0;
        for (std::size_t i = 0; i < 8; ++i) flag[i] = 0;
        RUN(look_back, 8, 1, 0, ticket.data(), sum.data(), flag.data(), fence);
    };
    CHECK_CLEAN(run(true));
    CHECK_FOUND("race", run(false));
}

// Blocks share out work by a counter.
__global__ void persistent(unsigned* next, int items, int* out, bool barrier) {
    SIMT_SHARED(int, item, );
    for (;;) {
        if (threadIdx.x == 0) item = int(atomicAdd(next, 1u));
        __syncthreads();
        const int mine = item;
        if (barrier) __syncthreads();
        if (mine >= items) return;
        out[mine * 64 + int(threadIdx.x)] = mine;
    }
}

TEST(work_from_a_counter) {
    check::Buffer<unsigned> next(1);
    check::Buffer<int> out(7 * 64);
    const simt::Registered registered({tensor("next", next), tensor("out", out)});
    const auto run = [&](bool barrier) {
        next[0] = 0;
        RUN(persistent, 3, 64, 0, next.data(), 7, out.data(), barrier);
    };
    CHECK_CLEAN(run(true));
    CHECK_FOUND("race", run(false));
}

// ---- Bytes of a word, atomics beside plain accesses, volatile -------------------------------------

__global__ void bytes(uint8_t* out, bool own, bool pack) {
    const int t = int(threadIdx.x);
    if (pack)
        reinterpret_cast<uint32_t*>(out)[t / 4] |= 1u << (t % 4 * 8);
    else
        out[own ? t : t / 2] = uint8_t(t);
}

TEST(bytes_of_a_word) {
    check::Buffer<uint8_t> out(64);
    const simt::Registered registered({tensor("out", out)});
    CHECK_CLEAN(RUN(bytes, 1, 64, 0, out.data(), true, false));
    CHECK_FOUND("race", RUN(bytes, 1, 64, 0, out.data(), false, false));
    CHECK_FOUND("race", RUN(bytes, 1, 64, 0, out.data(), true, true));
}

__global__ void mixed(int* count, int way) {
    atomicAdd(count, 1);
    if (way == 1 && threadIdx.x == 5) ++*count;
    if (way == 2) count[1 + threadIdx.x] = *count;
    if (way == 3) __syncthreads();
    if (way == 3 && threadIdx.x == 5) ++*count;
}

TEST(atomics_beside_plain_accesses) {
    check::Buffer<int> count(65);
    const simt::Registered registered({tensor("count", count)});
    CHECK_CLEAN(RUN(mixed, 1, 64, 0, count.data(), 0));
    CHECK_CLEAN(RUN(mixed, 1, 64, 0, count.data(), 3));
    CHECK_FOUND("race", RUN(mixed, 1, 64, 0, count.data(), 1));
    CHECK_FOUND("race", RUN(mixed, 1, 64, 0, count.data(), 2));
}

__global__ void volatile_updates(volatile int* count, bool one) {
    if (!one || threadIdx.x == 0) *count = *count + 1;
    if (one && threadIdx.x == 40)
        while (*count == 0) __nanosleep(10);
}

TEST(volatile_makes_no_update_atomic) {
    check::Buffer<int> count(1);
    const simt::Registered registered({tensor("count", count)});
    check::under_all_schedules([&] {
        count[0] = 0;
        CHECK_EQUAL(std::string(),
                    told([&] { RUN(volatile_updates, 1, 64, 0, count.data(), true); }));
    });
    CHECK_FOUND("race", RUN(volatile_updates, 1, 64, 0, count.data(), false));
}

// ---- Warps ----------------------------------------------------------------------------------------

__global__ void warp_sum(const int* in, int* out, unsigned mask, bool separate) {
    SIMT_SHARED(int, value, [64]);
    const int t = int(threadIdx.x), lane = t % 32;
    value[t] = in[t];
    if (mask >> lane & 1) __syncwarp(mask);
    for (int d = 16; d > 0; d /= 2) {
        const int other = lane < d ? value[t + d] : 0;
        if (separate) __syncwarp();
        if (lane < d) value[t] += other;
        __syncwarp();
    }
    if (lane == 0) out[t / 32] = value[t];
}

TEST(warp_synchronous_sums) {
    check::Buffer<int> in(64, 1), out(2);
    const simt::Registered registered({tensor("in", in, simt::Role::input), tensor("out", out)});
    CHECK_CLEAN(RUN(warp_sum, 1, 64, 0, in.data(), out.data(), kAll, true));
    CHECK_CLEAN(RUN(warp_sum, 1, 64, 0, in.data(), out.data(), kAll, false));
    CHECK_FOUND("race", RUN(warp_sum, 1, 64, 0, in.data(), out.data(), 0xffffu, true));
}

// ---- Asynchronous copies ------------------------------------------------------------------------

struct Pipeline {
    int stage_shift = 0;  // a copy goes to another stage than the one that is free
    bool commit = true, barrier = true;
};

__global__ void pipeline(const uint4* in, uint4* out, int tiles, Pipeline p) {
    SIMT_SHARED(uint4, stage, [3][64]);
    const int t = int(threadIdx.x);
    const auto begin = [&](int tile) {
        if (tile < tiles)
            simt::cp_async<16>(&stage[(tile + (tile > 1 ? p.stage_shift : 0)) % 3][t],
                               in + tile * 64 + t);
        if (p.commit) simt::cp_async_commit();
    };
    begin(0);
    begin(1);
    for (int tile = 0; tile < tiles; ++tile) {
        simt::cp_async_wait<1>();
        if (p.barrier) __syncthreads();
        begin(tile + 2);
        out[tile * 64 + t] = stage[tile % 3][63 - t];
    }
}

TEST(copies_ahead) {
    check::Buffer<uint4> in(7 * 64), out(7 * 64);
    const simt::Registered registered({tensor("in", in, simt::Role::input), tensor("out", out)});
    const auto run = [&](Pipeline p) { RUN(pipeline, 1, 64, 0, in.data(), out.data(), 7, p); };
    CHECK_CLEAN(run({}));
    for (const Pipeline& bug : {Pipeline{1, true, true}, Pipeline{2, true, true},
                                Pipeline{0, false, true}, Pipeline{0, true, false}})
        CHECK(!told([&] { run(bug); }).empty());
}

// ---- Barriers of some threads ---------------------------------------------------------------------

struct Hand {
    int init = 32, first_parity = 0, arrivals = 1;
    bool fence = false, wrong_barrier = false;
};

__global__ void hand_over(int* out, int rounds, Hand h) {
    SIMT_SHARED(uint64_t, full, );
    SIMT_SHARED(uint64_t, empty, );
    SIMT_SHARED(int, value, [32]);
    const int lane = int(threadIdx.x) % 32;
    if (threadIdx.x == 0) {
        simt::mbarrier_init(&full, h.init);
        simt::mbarrier_init(&empty, 32);
    }
    __syncthreads();
    for (int round = 0; round < rounds; ++round) {
        if (threadIdx.x < 32) {
            if (round > 0) simt::mbarrier_wait(&empty, (round - 1) & 1);
            value[lane] = round;
            for (int i = 0; i < h.arrivals; ++i)
                simt::mbarrier_arrive(h.wrong_barrier ? &empty : &full);
        } else {
            simt::mbarrier_wait(&full, (round + h.first_parity) & 1);
            out[round * 32 + lane] = value[31 - lane];
            simt::mbarrier_arrive(&empty);
        }
    }
}

TEST(phases_of_mbarriers) {
    check::Buffer<int> out(4 * 32);
    const simt::Registered registered({tensor("out", out)});
    const auto run = [&](Hand h) { RUN(hand_over, 1, 64, 0, out.data(), 4, h); };
    CHECK_CLEAN(run({}));
    CHECK_FOUND("race", run({32, 1}));
    CHECK_FOUND("deadlock", run({33}));
    CHECK_FOUND("race", run({31}));
    CHECK_FOUND("deadlock", run({32, 0, 2}));
    CHECK_FOUND("deadlock", run({32, 0, 1, false, true}));
}

__global__ void no_init(int* out) {
    SIMT_SHARED(uint64_t, full, );
    simt::mbarrier_arrive(&full);
    *out = 1;
}

TEST(an_mbarrier_without_init) {
    check::Buffer<int> out(1);
    const simt::Registered registered({tensor("out", out)});
    CHECK_FOUND("bad barrier", RUN(no_init, 1, 1, 0, out.data()));
}

// ---- Values ---------------------------------------------------------------------------------------

__global__ void leaves(int* out, bool write) {
    SIMT_SHARED(int, value, [32]);
    if (write) value[threadIdx.x] = 1;
    __syncwarp();
    if (!write) out[threadIdx.x] = value[threadIdx.x];
}

TEST(shared_memory_of_an_earlier_launch) {
    check::Buffer<int> out(32);
    const simt::Registered registered({tensor("out", out)});
    CHECK_CLEAN(RUN(leaves, 1, 32, 0, out.data(), true));
    CHECK_FOUND("uninitialised read", RUN(leaves, 1, 32, 0, out.data(), false));
}

__global__ void local(int* out, int n) {
    int value[4];
    for (int i = 0; i < n; ++i) value[i] = i;
    int sum = 0;
    for (int& v : value) sum += v;
    *out = sum;
}

TEST(a_local_variable_without_a_value_shows) {
    check::Buffer<int> out(1);
    const simt::Registered registered({tensor("out", out)});
    RUN(local, 1, 1, 0, out.data(), 4);
    CHECK_EQUAL(6, out[0]);
    RUN(local, 1, 1, 0, out.data(), 3);
    CHECK(out[0] < 0);
}

__global__ void constant_loads(int* data, const int* in, int way) {
    if (way == 0) data[threadIdx.x] = __ldg(in + threadIdx.x);
    if (way == 1) {
        data[threadIdx.x] = 1;
        __syncthreads();
        data[32 + threadIdx.x] = __ldg(data + (threadIdx.x ^ 1));
    }
}

TEST(constant_loads_of_what_the_kernel_writes) {
    check::Buffer<int> data(64), in(32);
    const simt::Registered registered({tensor("data", data), tensor("in", in, simt::Role::input)});
    CHECK_CLEAN(RUN(constant_loads, 1, 32, 0, data.data(), in.data(), 0));
    CHECK_FOUND("stale read", RUN(constant_loads, 1, 32, 0, data.data(), in.data(), 1));
}

// ---- Arithmetic -----------------------------------------------------------------------------------

__global__ void arithmetic(int* out, int a, int b, int way) {
    if (way == 0) *out = a << b;
    if (way == 1) *out = a / b;
    if (way == 2) *out = a * b;
    if (way == 3) *out = *reinterpret_cast<const int*>(static_cast<intptr_t>(a));
}

TEST(arithmetic_without_a_meaning) {
    check::Buffer<int> out(1);
    const simt::Registered registered({tensor("out", out)});
    const auto run = [&](int a, int b, int way) {
        RUN(arithmetic, 1, 1, 0, out.data(), a, b, way);
    };
    CHECK_CLEAN(run(1, 30, 0));
    CHECK_FOUND("undefined behaviour", run(1, 33, 0));
    CHECK_FOUND("undefined behaviour", run(7, 0, 1));
    CHECK_FOUND("undefined behaviour", run(1 << 20, 1 << 12, 2));
    CHECK_FOUND("undefined behaviour", run(0, 0, 3));
}

}  // namespace

#endif
