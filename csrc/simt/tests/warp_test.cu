// Shuffles, votes, match and reduce against a plain computation.
#include "check.h"

namespace {

constexpr unsigned kAll = 0xffffffffu;

// ---- Shuffles -----------------------------------------------------------------------------------

enum Kind { kIndex, kUp, kDown, kXor };

template <class T>
__global__ void shuffle(T* out, const T* in, int kind, int operand, int width) {
    const T v = in[threadIdx.x];
    T r = v;
    if (kind == kIndex) r = __shfl_sync(kAll, v, operand, width);
    if (kind == kUp) r = __shfl_up_sync(kAll, v, unsigned(operand), width);
    if (kind == kDown) r = __shfl_down_sync(kAll, v, unsigned(operand), width);
    if (kind == kXor) r = __shfl_xor_sync(kAll, v, operand, width);
    out[threadIdx.x] = r;
}

// The PTX definition of shfl, from which CUDA's four forms come.
int expected_source(int kind, int lane, int operand, int width) {
    const int segment = ~(width - 1) & 31;
    const int last = kind == kUp ? lane & segment : (lane & segment) | (width - 1);
    const int b = operand & 31;
    switch (kind) {
        case kIndex:
            return (lane & segment) | (b & ~segment);
        case kUp:
            return lane - b >= last ? lane - b : lane;
        case kDown:
            return lane + b <= last ? lane + b : lane;
        default:
            return (lane ^ b) <= last ? lane ^ b : lane;
    }
}

template <class T>
T value_of(int i) {
    return T(float(i * 3 - 40));
}

template <class T>
void check_shuffles(const std::vector<int>& operands) {
    check::Buffer<T> in(64), out(64);
    for (int i = 0; i < 64; ++i) in[std::size_t(i)] = value_of<T>(i);
    for (int kind : {kIndex, kUp, kDown, kXor}) {
        for (int width : {1, 2, 4, 8, 16, 32}) {
            for (int operand : operands) {
                RUN(shuffle<T>, 1, 64, 0, out.data(), in.data(), kind, operand, width);
                for (int i = 0; i < 64; ++i) {
                    const int source = (i & 32) + expected_source(kind, i & 31, operand, width);
                    CHECK(in[std::size_t(source)] == out[std::size_t(i)]);
                }
            }
        }
    }
}

TEST(shuffles_of_every_kind_and_width) {
    std::vector<int> operands;
    for (int i = 0; i < 34; ++i) operands.push_back(i);
    check::under_all_schedules([&] { check_shuffles<int>(operands); });
}

TEST(shuffles_of_every_type) {
    check::under_all_schedules([] {
        check_shuffles<unsigned>({1, 3});
        check_shuffles<long long>({1, 3});
        check_shuffles<unsigned long long>({1, 3});
        check_shuffles<float>({1, 3});
        check_shuffles<double>({1, 3});
        check_shuffles<__half>({1, 3});
        check_shuffles<__nv_bfloat16>({1, 3});
    });
}

// Each half of the warp works on its own, in its own branch.
__global__ void halves(float* out) {
    float v = float(threadIdx.x);
    if ((threadIdx.x & 31) < 16) {
        for (int i = 8; i > 0; i /= 2) v += __shfl_xor_sync(0x0000ffffu, v, i);
    } else {
        for (int i = 8; i > 0; i /= 2) v = fmaxf(v, __shfl_xor_sync(0xffff0000u, v, i));
        v += __shfl_sync(0xffff0000u, v, 20);
    }
    out[threadIdx.x] = v;
}

TEST(halves_of_a_warp_diverge) {
    check::under_all_schedules([] {
        check::Buffer<float> out(32);
        RUN(halves, 1, 32, 0, out.data());
        for (std::size_t i = 0; i < 16; ++i) CHECK_EQUAL(120.0f, out[i]);
        for (std::size_t i = 16; i < 32; ++i) CHECK_EQUAL(62.0f, out[i]);
    });
}

// ---- Votes, match, reduce -----------------------------------------------------------------------

struct Votes {
    unsigned ballot;
    int any, all;
    unsigned match_any, match_all;
    int match_all_predicate;
    int add, min, max;
    unsigned uadd, umin, umax, bit_and, bit_or, bit_xor;
};

__global__ void vote(Votes* out, const int* in, unsigned mask) {
    const int lane = int(threadIdx.x & 31);
    if (!(mask >> lane & 1)) return;
    const int v = in[threadIdx.x];
    Votes r;
    r.ballot = __ballot_sync(mask, v & 1);
    r.any = __any_sync(mask, v & 8) != 0;
    r.all = __all_sync(mask, v & 16) != 0;
    r.match_any = __match_any_sync(mask, v);
    r.match_all = __match_all_sync(mask, v >> 8, &r.match_all_predicate);
    r.match_all_predicate = r.match_all_predicate != 0;
    r.add = __reduce_add_sync(mask, v - 60);
    r.min = __reduce_min_sync(mask, v - 60);
    r.max = __reduce_max_sync(mask, v - 60);
    r.uadd = __reduce_add_sync(mask, unsigned(v) * 0x10000001u);
    r.umin = __reduce_min_sync(mask, unsigned(v - 60));
    r.umax = __reduce_max_sync(mask, unsigned(v - 60));
    r.bit_and = __reduce_and_sync(mask, unsigned(v));
    r.bit_or = __reduce_or_sync(mask, unsigned(v));
    r.bit_xor = __reduce_xor_sync(mask, unsigned(v));
    out[threadIdx.x] = r;
}

void check_votes(unsigned mask, const check::Buffer<int>& buffer) {
    const std::vector<int> in = buffer.copy();
    check::Buffer<int> device(64);
    for (std::size_t i = 0; i < 64; ++i) device[i] = in[i];
    check::Buffer<Votes> out(64);
    RUN(vote, 1, 64, 0, out.data(), device.data(), mask);
    for (std::size_t i = 0; i < 64; ++i) {
        if (!(mask >> (i & 31) & 1)) continue;
        Votes e{};
        e.all = e.match_all_predicate = 1;
        e.bit_and = e.umin = ~0u;
        e.min = 1 << 30;
        e.max = -e.min;
        for (std::size_t j = i & 32; j < (i & 32) + 32; ++j) {
            if (!(mask >> (j & 31) & 1)) continue;
            const int v = in[j];
            const unsigned bit = 1u << (j & 31);
            if (v & 1) e.ballot |= bit;
            if (v & 8) e.any = 1;
            if (!(v & 16)) e.all = 0;
            if (v == in[i]) e.match_any |= bit;
            if (v >> 8 != in[i] >> 8) e.match_all_predicate = 0;
            e.add += v - 60;
            e.min = std::min(e.min, v - 60);
            e.max = std::max(e.max, v - 60);
            e.uadd += unsigned(v) * 0x10000001u;
            e.umin = std::min(e.umin, unsigned(v - 60));
            e.umax = std::max(e.umax, unsigned(v - 60));
            e.bit_and &= unsigned(v);
            e.bit_or |= unsigned(v);
            e.bit_xor ^= unsigned(v);
        }
        e.match_all = e.match_all_predicate ? mask : 0;
        CHECK(std::memcmp(&e, &out[i], sizeof e) == 0);
    }
}

TEST(votes_match_and_reduce) {
    check::under_all_schedules([] {
        for (unsigned mask : {kAll, 0x0000ffffu, 0x80000001u, 0x5a5a5a5au, 0x00000100u}) {
            for (int family = 0; family < 3; ++family) {
                check::Buffer<int> in(64);
                for (int i = 0; i < 64; ++i)
                    in[std::size_t(i)] = family == 0   ? i * 37 % 101
                                         : family == 1 ? 31
                                                       : i % 3 * 256;
                check_votes(mask, in);
            }
        }
    });
}

__global__ void match_wide(unsigned* out, const double* in) {
    out[threadIdx.x] = __match_any_sync(kAll, in[threadIdx.x]);
}

TEST(match_looks_at_all_64_bits) {
    check::Buffer<double> in(32);
    check::Buffer<unsigned> out(32);
    for (std::size_t i = 0; i < 32; ++i) in[i] = i % 2 ? 1.0 : -1.0;
    RUN(match_wide, 1, 32, 0, out.data(), in.data());
    for (std::size_t i = 0; i < 32; ++i) CHECK_EQUAL(i % 2 ? 0xaaaaaaaau : 0x55555555u, out[i]);
}

// ---- __syncwarp, partial warps ------------------------------------------------------------------

__global__ void exchange_through_shared(int* out, int n) {
    SIMT_SHARED(int, value, [64]);
    const int i = int(threadIdx.x);
    value[i] = i * i;
    __syncwarp();
    const int last = min(i | 31, n - 1);
    out[i] = value[last];
}

TEST(syncwarp_lets_lanes_exchange_through_shared_memory) {
    check::under_all_schedules([] {
        for (int threads : {1, 20, 32, 50, 64}) {
            check::Buffer<int> out{std::size_t(threads)};
            RUN(exchange_through_shared, 1, threads, 0, out.data(), threads);
            for (int i = 0; i < threads; ++i) {
                const int last = std::min(i | 31, threads - 1);
                CHECK_EQUAL(last * last, out[std::size_t(i)]);
            }
        }
    });
}

// Warp-aggregated increment: right whatever subset of lanes __activemask names.
__global__ void aggregated_count(int* counter) {
    if (threadIdx.x % 3 == 0) {
        const unsigned active = __activemask();
        const int leader = __ffs(int(active)) - 1;
        if (int(threadIdx.x & 31) == leader) atomicAdd(counter, __popc(active));
    }
}

TEST(activemask_names_the_caller_and_is_consistent) {
    check::under_all_schedules([] {
        check::Buffer<int> counter(1);
        RUN(aggregated_count, 4, 96, 0, counter.data());
        CHECK_EQUAL(4 * 32, counter[0]);
    });
}

}  // namespace
