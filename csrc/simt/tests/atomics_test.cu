// Atomics on shared and global memory, within a block and between blocks.
#include "check.h"

namespace {

struct Totals {
    int add, sub, min, max, bit_and, bit_or, bit_xor, exchanged;
    unsigned uadd, inc, dec, umin, umax;
    unsigned long long ladd, lmin, lmax, lor;
    long long smin, smax;
    float fadd;
    double dadd;
    unsigned cas;
};

__global__ void update(Totals* t) {
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    atomicAdd(&t->add, i);
    atomicSub(&t->sub, i);
    atomicMin(&t->min, -i);
    atomicMax(&t->max, i);
    atomicAnd(&t->bit_and, ~(1 << (i % 8)));
    atomicOr(&t->bit_or, 1 << (i % 20));
    atomicXor(&t->bit_xor, i);
    atomicExch(&t->exchanged, 77);
    atomicAdd(&t->uadd, 2);
    atomicInc(&t->inc, 6);
    atomicDec(&t->dec, 6);
    atomicMin(&t->umin, unsigned(i) + 5);
    atomicMax(&t->umax, 0x80000000u + unsigned(i));
    atomicAdd(&t->ladd, 1ull << 33);
    atomicMin(&t->lmin, (1ull << 40) + unsigned(i));
    atomicMax(&t->lmax, (1ull << 40) + unsigned(i));
    atomicOr(&t->lor, 1ull << (i % 64));
    atomicMin(&t->smin, -(1ll << 40) - i);
    atomicMax(&t->smax, -(1ll << 40) + i);
    atomicAdd(&t->fadd, 0.5f);
    atomicAdd(&t->dadd, 0.25);
    unsigned seen = *static_cast<volatile unsigned*>(&t->cas), expected;
    do {
        expected = seen;
        seen = atomicCAS(&t->cas, expected, expected + 3);
    } while (seen != expected);
}

TEST(totals_are_exact) {
    check::under_all_schedules([] {
        const int blocks = 24, threads = 64, n = blocks * threads;
        check::Buffer<Totals> buffer(1, Totals{});
        Totals& t = buffer[0];
        t.bit_and = 0xfff;
        t.dec = t.umin = 1000;
        t.lmin = ~0ull;
        t.smax = -(1ll << 50);
        RUN(update, blocks, threads, 0, buffer.data());
        int x = 0;
        for (int i = 0; i < n; ++i) x ^= i;
        CHECK_EQUAL(n * (n - 1) / 2, t.add);
        CHECK_EQUAL(-n * (n - 1) / 2, t.sub);
        CHECK_EQUAL(1 - n, t.min);
        CHECK_EQUAL(n - 1, t.max);
        CHECK_EQUAL(0xf00, t.bit_and);
        CHECK_EQUAL(0xfffff, t.bit_or);
        CHECK_EQUAL(x, t.bit_xor);
        CHECK_EQUAL(77, t.exchanged);
        CHECK_EQUAL(unsigned(2 * n), t.uadd);
        CHECK_EQUAL(unsigned(n % 7), t.inc);
        CHECK_EQUAL(unsigned(6 - (n - 1) % 7), t.dec);
        CHECK_EQUAL(5u, t.umin);
        CHECK_EQUAL(0x80000000u + unsigned(n - 1), t.umax);
        CHECK_EQUAL((1ull << 33) * unsigned(n), t.ladd);
        CHECK_EQUAL(1ull << 40, t.lmin);
        CHECK_EQUAL((1ull << 40) + unsigned(n - 1), t.lmax);
        CHECK_EQUAL(~0ull, t.lor);
        CHECK_EQUAL(-(1ll << 40) - (n - 1), t.smin);
        CHECK_EQUAL(-(1ll << 40) + (n - 1), t.smax);
        CHECK_EQUAL(0.5f * float(n), t.fadd);
        CHECK_EQUAL(0.25 * n, t.dadd);
        CHECK_EQUAL(unsigned(3 * n), t.cas);
    });
}

// Everyone gets a different ticket: the returned values are the old ones.
__global__ void tickets(int* out, int* counter) {
    SIMT_SHARED(int, local, );
    if (threadIdx.x == 0) local = 0;
    __syncthreads();
    const int mine = atomicAdd_block(&local, 1);
    __syncthreads();
    SIMT_SHARED(int, base, );
    if (threadIdx.x == 0) base = atomicAdd_system(counter, local);
    __syncthreads();
    atomicAdd(&out[base + mine], 1);
}

TEST(tickets_are_distinct) {
    check::under_all_schedules([] {
        check::Buffer<int> out(40 * 64), counter(1);
        RUN(tickets, 40, 64, 0, out.data(), counter.data());
        for (std::size_t i = 0; i < out.size(); ++i) CHECK_EQUAL(1, out[i]);
    });
}

__global__ void add_halves(__half* h, __nv_bfloat16* b) {
    atomicAdd(h, __float2half(1.0f));
    atomicAdd(b, __float2bfloat16(1.0f));
}

TEST(halves_are_added) {
    check::under_all_schedules([] {
        check::Buffer<__half> h(2, __float2half(0.0f));
        check::Buffer<__nv_bfloat16> b(2, __float2bfloat16(0.0f));
        RUN(add_halves, 2, 64, 0, h.data(), b.data());
        CHECK_EQUAL(128.0f, simt::to_float(h[0]));
        CHECK_EQUAL(128.0f, simt::to_float(b[0]));
        CHECK_EQUAL(0.0f, simt::to_float(h[1]));
        CHECK_EQUAL(0.0f, simt::to_float(b[1]));
    });
}

// A thread that polls lets the one it waits for run.
__global__ void poll(int* out) {
    SIMT_SHARED(int, flag, );
    if (threadIdx.x == 0) flag = 0;
    __syncthreads();
    if (threadIdx.x == 5) {
        while (atomicAdd(&flag, 0) == 0) __nanosleep(100);
        *out = atomicAdd(&flag, 0);
    }
    if (threadIdx.x == 70) atomicExch(&flag, 9);
}

TEST(nanosleep_yields) {
    check::under_all_schedules([] {
        check::Buffer<int> out(1);
        RUN(poll, 1, 96, 0, out.data());
        CHECK_EQUAL(9, out[0]);
    });
}

}  // namespace
