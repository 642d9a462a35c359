// Matrix instructions, asynchronous copies, numbered barriers and mbarriers against a plain
// computation. On the host results must be equal to the bit; on a GPU the sums of mma.sync may differ
// by a stated bound, and the table says by how much they do.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <random>

#include "check.h"

namespace {

// ---- Operands -----------------------------------------------------------------------------------

enum Family { kIntegers, kNormal, kWide, kSpecial, kFamilies };
const char* const kFamilyNames[] = {"small integers", "normal", "wide range", "specials"};

// Exponents stay so small that no product or sum overflows: how an overflow within a sum ends is the
// hardware's own affair.
float draw(Family family, std::mt19937& random) {
    const float uniform = float(random() >> 8) * 0x1p-24f - 0.5f;
    switch (family) {
        case kIntegers:
            return float(int(random() % 17) - 8);
        case kNormal:
            return uniform * 4;
        case kWide:
            return std::ldexp(uniform, int(random() % 24) - 12);
        default: {
            const float specials[] = {0.0f, -0.0f,    INFINITY, -INFINITY,
                                      NAN,  0x1p-14f, 0x1p-24f, 1.0f};
            return random() % 4 ? uniform : specials[random() % 8];
        }
    }
}

struct Half {
    static constexpr int k = 16;
    static constexpr const char* name = "mma_m16n8k16 fp16";
    using T = __half;
    static float round(float x) { return simt::to_float(simt::from_float<T>(x)); }
};
struct Bfloat16 {
    static constexpr int k = 16;
    static constexpr const char* name = "mma_m16n8k16 bf16";
    using T = __nv_bfloat16;
    static float round(float x) { return simt::to_float(simt::from_float<T>(x)); }
};
struct Tf32 {
    static constexpr int k = 8;
    static constexpr const char* name = "mma_m16n8k8 tf32";
    using T = float;
    static float round(float x) {
        uint32_t bits;
        std::memcpy(&bits, &x, 4);
        bits &= 0xffffe000u;
        std::memcpy(&x, &bits, 4);
        return x;
    }
};

__device__ uint32_t pack(__half x, __half y) {
    return __half_as_ushort(x) | uint32_t(__half_as_ushort(y)) << 16;
}
__device__ uint32_t pack(__nv_bfloat16 x, __nv_bfloat16 y) {
    return __bfloat16_as_ushort(x) | uint32_t(__bfloat16_as_ushort(y)) << 16;
}

// One warp for each product; matrices are row-major floats that T holds exactly.
template <class T>
__global__ void multiply_k16(const float* a, const float* b, const float* c, float* d) {
    const int lane = int(threadIdx.x), group = lane / 4, pair = lane % 4 * 2;
    a += blockIdx.x * 256, b += blockIdx.x * 128, c += blockIdx.x * 128, d += blockIdx.x * 128;
    uint32_t fa[4], fb[2];
    float fc[4], fd[4];
    for (int r = 0; r < 4; ++r) {
        const float* at = a + (group + r % 2 * 8) * 16 + pair + r / 2 * 8;
        fa[r] = pack(simt::from_float<T>(at[0]), simt::from_float<T>(at[1]));
    }
    for (int r = 0; r < 2; ++r) {
        const float* at = b + (pair + r * 8) * 8 + group;
        fb[r] = pack(simt::from_float<T>(at[0]), simt::from_float<T>(at[8]));
    }
    for (int e = 0; e < 4; ++e) fc[e] = c[(group + e / 2 * 8) * 8 + pair + e % 2];
    simt::mma_m16n8k16<T>(fd, fa, fb, fc);
    for (int e = 0; e < 4; ++e) d[(group + e / 2 * 8) * 8 + pair + e % 2] = fd[e];
}

__global__ void multiply_tf32(const float* a, const float* b, const float* c, float* d) {
    const int lane = int(threadIdx.x), group = lane / 4, member = lane % 4;
    a += blockIdx.x * 128, b += blockIdx.x * 64, c += blockIdx.x * 128, d += blockIdx.x * 128;
    uint32_t fa[4], fb[2];
    float fc[4], fd[4];
    for (int r = 0; r < 4; ++r)
        fa[r] = __float_as_uint(a[(group + r % 2 * 8) * 8 + member + r / 2 * 4]);
    for (int r = 0; r < 2; ++r) fb[r] = __float_as_uint(b[(member + r * 4) * 8 + group]);
    for (int e = 0; e < 4; ++e) fc[e] = c[(group + e / 2 * 8) * 8 + member * 2 + e % 2];
    simt::mma_m16n8k8_tf32(fd, fa, fb, fc);
    for (int e = 0; e < 4; ++e) d[(group + e / 2 * 8) * 8 + member * 2 + e % 2] = fd[e];
}

void launch(Half, unsigned n, const float* a, const float* b, const float* c, float* d) {
    RUN(multiply_k16<__half>, n, 32, 0, a, b, c, d);
}
void launch(Bfloat16, unsigned n, const float* a, const float* b, const float* c, float* d) {
    RUN(multiply_k16<__nv_bfloat16>, n, 32, 0, a, b, c, d);
}
void launch(Tf32, unsigned n, const float* a, const float* b, const float* c, float* d) {
    RUN(multiply_tf32, n, 32, 0, a, b, c, d);
}

// How far hardware may be from one rounding of the exact sum: each of k products and C may lose what
// is below 23 bits under the largest of them. The host is not allowed that.
double bound(int k, double largest) {
#if defined(SIMT_DEVICE)
    return (k + 1) * std::ldexp(largest, -23);
#else
    return 0 * k * largest;
#endif
}

template <class Kind>
void check_products(Family family) {
    constexpr int k = Kind::k;
    const unsigned products = 200;
    std::mt19937 random(unsigned(k) + unsigned(family));
    check::Buffer<float> a(products * 16 * k), b(products * k * 8), c(products * 128),
        d(products * 128);
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = Kind::round(draw(family, random));
    for (std::size_t i = 0; i < b.size(); ++i) b[i] = Kind::round(draw(family, random));
    for (std::size_t i = 0; i < c.size(); ++i) c[i] = draw(family, random);
    launch(Kind(), products, a.data(), b.data(), c.data(), d.data());
    std::size_t equal = 0;
    double worst = 0;
    for (std::size_t p = 0; p < products; ++p) {
        for (std::size_t i = 0; i < 128; ++i) {
            double sum = c[p * 128 + i], largest = std::fabs(sum);
            for (std::size_t j = 0; j < k; ++j) {
                const double product =
                    double(a[p * 16 * k + i / 8 * k + j]) * double(b[p * k * 8 + j * 8 + i % 8]);
                sum += product;
                largest = std::max(largest, std::fabs(product));
            }
            const float expected = float(sum), actual = d[p * 128 + i];
            const bool same = expected == actual || (std::isnan(expected) && std::isnan(actual));
            equal += same;
            if (same) continue;
            const double error = std::fabs(double(expected) - double(actual));
            CHECK(error <= bound(k, largest));
            worst = std::max(worst, error / std::ldexp(largest, -23));
        }
    }
    std::printf(
        "     %-18s %-15s %6zu of %6u equal, worst error %.2f * 2^-23 of the largest term\n",
        Kind::name, kFamilyNames[family], equal, products * 128, worst);
    if (family == kIntegers) CHECK_EQUAL(std::size_t(products * 128), equal);
}

TEST(matrix_products) {
    for (int family = 0; family < kFamilies; ++family) {
        check_products<Half>(Family(family));
        check_products<Bfloat16>(Family(family));
        check_products<Tf32>(Family(family));
    }
}

// ---- ldmatrix, stmatrix -------------------------------------------------------------------------

// Rows of the matrices lie in a scrambled order, so that addresses matter.
__device__ int place_of(int row) { return row * 5 % 32; }

template <int n, bool transposed>
__global__ void load_matrices(const uint16_t* in, uint32_t* out) {
    SIMT_SHARED(uint4, rows, [32]);
    const int lane = int(threadIdx.x);
    rows[place_of(lane)] = reinterpret_cast<const uint4*>(in)[lane];
    __syncthreads();
    uint32_t r[n];
    const void* row = lane < 8 * n ? &rows[place_of(lane)] : &rows[0];
    if (transposed)
        simt::ldmatrix_trans<n>(r, row);
    else
        simt::ldmatrix<n>(r, row);
    for (int m = 0; m < n; ++m) out[m * 32 + lane] = r[m];
}

template <int n, bool transposed>
__global__ void store_matrices(const uint32_t* in, uint16_t* out) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    SIMT_SHARED(uint4, rows, [32]);
    const int lane = int(threadIdx.x);
    rows[lane] = uint4{0, 0, 0, 0};
    __syncthreads();
    uint32_t r[n];
    for (int m = 0; m < n; ++m) r[m] = in[m * 32 + lane];
    void* row = lane < 8 * n ? &rows[place_of(lane)] : &rows[0];
    if (transposed)
        simt::stmatrix_trans<n>(row, r);
    else
        simt::stmatrix<n>(row, r);
    __syncthreads();
    reinterpret_cast<uint4*>(out)[lane] = rows[place_of(lane)];
#endif
}

template <int n, bool transposed>
void check_moves() {
    check::Buffer<uint4> memory(32), back(32);
    check::Buffer<uint32_t> fragments(32 * n);
    uint16_t* elements = reinterpret_cast<uint16_t*>(memory.data());
    for (int i = 0; i < 256; ++i) elements[i] = uint16_t(i * 257 + 3);
    RUN((load_matrices<n, transposed>), 1, 32, 0, elements, fragments.data());
    for (int m = 0; m < n; ++m) {
        for (int lane = 0; lane < 32; ++lane) {
            for (int e = 0; e < 2; ++e) {
                const int across = lane % 4 * 2 + e, down = lane / 4;
                const int row = transposed ? across : down, column = transposed ? down : across;
                CHECK_EQUAL(elements[(m * 8 + row) * 8 + column],
                            uint16_t(fragments[std::size_t(m * 32 + lane)] >> 16 * e));
            }
        }
    }
#if defined(SIMT_DEVICE)
    cudaDeviceProp device;
    cudaGetDeviceProperties(&device, 0);
    if (device.major < 9) return;
#endif
    uint16_t* returned = reinterpret_cast<uint16_t*>(back.data());
    RUN((store_matrices<n, transposed>), 1, 32, 0, fragments.data(), returned);
    for (int i = 0; i < 64 * n; ++i) CHECK_EQUAL(elements[i], returned[i]);
}

TEST(matrices_move_between_registers_and_shared_memory) {
    check::under_all_schedules([] {
        check_moves<1, false>();
        check_moves<2, false>();
        check_moves<4, false>();
        check_moves<1, true>();
        check_moves<2, true>();
        check_moves<4, true>();
    });
}

// ---- Asynchronous copies ------------------------------------------------------------------------

// Sums tiles that arrive two ahead.
template <int bytes>
__global__ void sum_tiles(const char* in, unsigned* out, int tiles) {
    constexpr int kStages = 3, kTile = 64 * bytes;
    SIMT_SHARED(uint4, stage, [kStages][kTile / 16]);
    const int t = int(threadIdx.x);
    const auto begin = [&](int tile) {
        if (tile < tiles)
            simt::cp_async<bytes>(reinterpret_cast<char*>(stage[tile % kStages]) + t * bytes,
                                  in + tile * kTile + t * bytes);
        simt::cp_async_commit();
    };
    begin(0);
    begin(1);
    unsigned sum = 0;
    for (int tile = 0; tile < tiles; ++tile) {
        simt::cp_async_wait<1>();
        __syncthreads();  // everyone's part has arrived, and everyone is done with the stage to fill
        begin(tile + 2);
        const unsigned* words = reinterpret_cast<const unsigned*>(stage[tile % kStages]);
        for (int i = t; i < kTile / 4; i += 64) sum = sum * 3 + words[(i + 1) % (kTile / 4)];
    }
    out[t] = sum;
}

template <int bytes>
void check_tiles() {
    const int tiles = 7, words = tiles * 64 * bytes / 4, tile_words = 64 * bytes / 4;
    check::Buffer<uint4> in(std::size_t(words) / 4);
    check::Buffer<unsigned> out(64);
    unsigned* values = reinterpret_cast<unsigned*>(in.data());
    for (int i = 0; i < words; ++i) values[i] = unsigned(i) * 2654435761u;
    RUN(sum_tiles<bytes>, 1, 64, 0, reinterpret_cast<const char*>(in.data()), out.data(), tiles);
    for (int t = 0; t < 64; ++t) {
        unsigned sum = 0;
        for (int tile = 0; tile < tiles; ++tile)
            for (int i = t; i < tile_words; i += 64)
                sum = sum * 3 + values[tile * tile_words + (i + 1) % tile_words];
        CHECK_EQUAL(sum, out[std::size_t(t)]);
    }
}

TEST(asynchronous_copies_in_groups) {
    check::under_all_schedules([] {
        check_tiles<4>();
        check_tiles<8>();
        check_tiles<16>();
    });
}

__global__ void zero_fill(const uint4* in, uint4* out, int valid) {
    SIMT_SHARED(uint4, staged, [32]);
    const int t = int(threadIdx.x);
    simt::cp_async<16>(&staged[t], t < valid ? &in[t] : in, t < valid);
    simt::cp_async_wait_all();
    __syncwarp();
    out[t] = staged[31 - t];
}

TEST(asynchronous_copies_fill_with_zeros) {
    check::under_all_schedules([] {
        check::Buffer<uint4> in(32, uint4{1, 2, 3, 4}), out(32);
        RUN(zero_fill, 1, 32, 0, in.data(), out.data(), 20);
        for (std::size_t i = 0; i < 32; ++i) CHECK_EQUAL(31 - i < 20 ? 4u : 0u, out[i].w);
    });
}

// What a thread writes where its own copy still goes is overwritten, sooner or later.
__global__ void overtaken(const int* in, int* out, bool waits) {
    SIMT_SHARED(int, staged, [32]);
    const int t = int(threadIdx.x);
    simt::cp_async<4>(&staged[t], &in[t]);
    if (waits) simt::cp_async_wait_all();
    __syncwarp();
    staged[t] = -1;
    __syncwarp();
    out[t] = staged[31 - t];
}

TEST(asynchronous_copies_end_early) {
    check::Buffer<int> in(32, 7);
    int overtaken_at_all = 0;
    for (uint64_t seed = 0; seed < 20; ++seed)
        for (const auto policy : {simt::Policy::Random, simt::Policy::Priority}) {
            simt::set_schedule({policy, seed, 1});
            check::Buffer<int> out(32);
            RUN(overtaken, 1, 32, 0, in.data(), out.data(), true);
            for (std::size_t i = 0; i < 32; ++i) CHECK_EQUAL(-1, out[i]);
            if (simt::is_checked()) continue;  // which stops at the write
            RUN(overtaken, 1, 32, 0, in.data(), out.data(), false);
            for (std::size_t i = 0; i < 32; ++i) overtaken_at_all += out[i] == 7;
            check::Buffer<int> again(32);  // what ran before decides nothing
            RUN(overtaken, 1, 32, 0, in.data(), again.data(), false);
            for (std::size_t i = 0; i < 32; ++i) CHECK_EQUAL(out[i], again[i]);
        }
    simt::set_schedule({});
    if (!simt::is_checked()) CHECK(overtaken_at_all > 0);
}

// ---- Barriers of some threads -------------------------------------------------------------------

// Two pairs of warps, each with a barrier of its own.
__global__ void pairs(int* out) {
    SIMT_SHARED(int, value, [128]);
    const int t = int(threadIdx.x), pair = t / 64;
    for (int round = 0; round < 3; ++round) {
        value[t] = t * 10 + round;
        simt::named_barrier_sync(1 + pair, 64);
        out[round * 128 + t] = value[t ^ 32];
        simt::named_barrier_sync(1 + pair, 64);
    }
}

TEST(numbered_barriers) {
    check::under_all_schedules([] {
        check::Buffer<int> out(3 * 128);
        RUN(pairs, 1, 128, 0, out.data());
        for (int i = 0; i < 3 * 128; ++i)
            CHECK_EQUAL(((i % 128) ^ 32) * 10 + i / 128, out[std::size_t(i)]);
    });
}

// A warp produces, another consumes: one barrier says full, the other empty.
__global__ void producer_and_consumer(int* out, int rounds) {
    SIMT_SHARED(int, value, [32]);
    const int lane = int(threadIdx.x) % 32;
    const bool producer = threadIdx.x < 32;
    for (int round = 0; round < rounds; ++round) {
        if (producer) {
            if (round > 0) simt::named_barrier_sync(2, 64);
            value[lane] = lane + 100 * round;
            simt::named_barrier_arrive(1, 64);
        } else {
            simt::named_barrier_sync(1, 64);
            out[round * 32 + lane] = value[31 - lane];
            if (round + 1 < rounds) simt::named_barrier_arrive(2, 64);
        }
    }
}

TEST(arriving_without_waiting) {
    check::under_all_schedules([] {
        check::Buffer<int> out(5 * 32);
        RUN(producer_and_consumer, 1, 64, 0, out.data(), 5);
        for (int i = 0; i < 5 * 32; ++i)
            CHECK_EQUAL(31 - i % 32 + 100 * (i / 32), out[std::size_t(i)]);
    });
}

// The same with two mbarriers.
__global__ void produce_through_mbarriers(int* out, int rounds) {
    SIMT_SHARED(uint64_t, full, );
    SIMT_SHARED(uint64_t, empty, );
    SIMT_SHARED(int, value, [64]);
    const int i = int(threadIdx.x) % 64;
    if (threadIdx.x == 0) {
        simt::mbarrier_init(&full, 64);
        simt::mbarrier_init(&empty, 64);
    }
    __syncthreads();
    for (int round = 0; round < rounds; ++round) {
        if (threadIdx.x < 64) {
            if (round > 0) simt::mbarrier_wait(&empty, (round - 1) & 1);
            value[i] = i + 100 * round;
            simt::mbarrier_arrive(&full);
        } else {
            simt::mbarrier_wait(&full, round & 1);
            out[round * 64 + i] = value[63 - i];
            simt::mbarrier_arrive(&empty);
        }
    }
}

TEST(mbarriers) {
    check::under_all_schedules([] {
        check::Buffer<int> out(6 * 64);
        RUN(produce_through_mbarriers, 1, 128, 0, out.data(), 6);
        for (int i = 0; i < 6 * 64; ++i)
            CHECK_EQUAL(63 - i % 64 + 100 * (i / 64), out[std::size_t(i)]);
    });
}

}  // namespace
