// Three textbook kernels and a last-block reduction.
#include "check.h"

namespace {

// ---- Sum over a block with shuffles, over the grid with an atomic -------------------------------

__global__ void sum(const float* in, float* out, int n) {
    SIMT_SHARED(float, partial, [32]);
    float v = 0;
    for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < n;
         i += int(gridDim.x * blockDim.x))
        v += in[i];
    for (int offset = warpSize / 2; offset > 0; offset /= 2)
        v += __shfl_down_sync(0xffffffffu, v, unsigned(offset));
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (lane == 0) partial[warp] = v;
    __syncthreads();
    if (warp == 0) {
        v = lane < blockDim.x / 32 ? partial[lane] : 0.0f;
        for (int offset = warpSize / 2; offset > 0; offset /= 2)
            v += __shfl_down_sync(0xffffffffu, v, unsigned(offset));
        if (lane == 0) atomicAdd(out, v);
    }
}

TEST(sum_with_shuffles) {
    check::under_all_schedules([] {
        for (int n : {0, 1, 1000, 40000}) {
            check::Buffer<float> in(std::size_t(n) + 1, 1e30f), out(1);
            double expected = 0;
            for (int i = 0; i < n; ++i) expected += in[std::size_t(i)] = float(i % 17);
            RUN(sum, 16, 256, 0, in.data(), out.data(), n);
            CHECK_EQUAL(float(expected), out[0]);
        }
    });
}

// ---- Tiled transpose ----------------------------------------------------------------------------

template <class T, int TILE>
__global__ void transpose(const T* __restrict__ in, T* __restrict__ out, int rows, int columns) {
    SIMT_SHARED(T, tile, [TILE][TILE + 1]);  // the extra column avoids bank conflicts
    const int x = int(blockIdx.x * TILE + threadIdx.x), y = int(blockIdx.y * TILE);
#pragma unroll
    for (int j = int(threadIdx.y); j < TILE; j += int(blockDim.y))
        if (x < columns && y + j < rows) tile[j][threadIdx.x] = in[(y + j) * columns + x];
    __syncthreads();
    const int tx = int(blockIdx.y * TILE + threadIdx.x), ty = int(blockIdx.x * TILE);
#pragma unroll
    for (int j = int(threadIdx.y); j < TILE; j += int(blockDim.y))
        if (tx < rows && ty + j < columns) out[(ty + j) * rows + tx] = tile[threadIdx.x][j];
}

template <class T>
void check_transpose() {
    for (const int rows : {1, 33, 64}) {
        const int columns = 97;
        check::Buffer<T> in(std::size_t(rows * columns)), out(std::size_t(rows * columns));
        for (int i = 0; i < rows * columns; ++i) in[std::size_t(i)] = T(float(i % 2048));
        RUN((transpose<T, 32>), dim3((columns + 31) / 32, unsigned(rows + 31) / 32), dim3(32, 8), 0,
            in.data(), out.data(), rows, columns);
        for (int r = 0; r < rows; ++r)
            for (int c = 0; c < columns; ++c)
                CHECK_EQUAL(float(in[std::size_t(r * columns + c)]),
                            float(out[std::size_t(c * rows + r)]));
    }
}

TEST(tiled_transpose) {
    check::under_all_schedules([] {
        check_transpose<float>();
        check_transpose<__half>();
        check_transpose<__nv_bfloat16>();
    });
}

// ---- Histogram ----------------------------------------------------------------------------------

__global__ void histogram(const unsigned char* in, int n, unsigned* bins) {
    unsigned* local = simt::dynamic_shared<unsigned>();  // [256]
    for (unsigned i = threadIdx.x; i < 256; i += blockDim.x) local[i] = 0;
    __syncthreads();
    for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < n;
         i += int(gridDim.x * blockDim.x))
        atomicAdd(&local[in[i]], 1);
    __syncthreads();
    for (unsigned i = threadIdx.x; i < 256; i += blockDim.x) atomicAdd(&bins[i], local[i]);
}

TEST(histogram_in_shared_memory) {
    check::under_all_schedules([] {
        const int n = 30000;
        check::Buffer<unsigned char> in(n);
        check::Buffer<unsigned> bins(256);
        std::vector<unsigned> expected(256);
        for (int i = 0; i < n; ++i) {
            in[std::size_t(i)] = (unsigned char)(i * i % 251);
            ++expected[in[std::size_t(i)]];
        }
        RUN(histogram, 12, 128, 256 * sizeof(unsigned), in.data(), n, bins.data());
        for (std::size_t i = 0; i < 256; ++i) CHECK_EQUAL(expected[i], bins[i]);
    });
}

// ---- The last block to finish adds up what the others left --------------------------------------

__global__ void last_block_sum(const float* in, int n, float* partial, unsigned* done, float* out) {
    SIMT_SHARED(float, value, [128]);
    SIMT_SHARED(bool, is_last, );
    float v = 0;
    for (int i = int(blockIdx.x * 128 + threadIdx.x); i < n; i += int(gridDim.x * 128)) v += in[i];
    value[threadIdx.x] = v;
    __syncthreads();
    for (unsigned d = 64; d > 0; d /= 2) {
        if (threadIdx.x < d) value[threadIdx.x] += value[threadIdx.x + d];
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = value[0];
        __threadfence();
        is_last = atomicAdd(done, 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (is_last && threadIdx.x == 0) {
        float total = 0;
        for (unsigned b = 0; b < gridDim.x; ++b) total += partial[b];
        *out = total;
    }
}

// The order of the additions is fixed, so all schedules agree to the bit.
TEST(last_block_reduction) {
    const int n = 20000, blocks = 37;
    check::Buffer<float> in(n);
    double expected = 0;
    for (int i = 0; i < n; ++i) expected += in[std::size_t(i)] = 1.0f / float(1 + i % 97);
    float first = 0;
    check::under_all_schedules([&] {
        check::Buffer<float> partial(blocks, 1e30f), out(1, -1.0f);
        check::Buffer<unsigned> done(1);
        RUN(last_block_sum, blocks, 128, 0, in.data(), n, partial.data(), done.data(), out.data());
        if (first == 0) first = out[0];
        CHECK_EQUAL(first, out[0]);
        CHECK(std::fabs(out[0] - expected) < 1e-3);
    });
}

}  // namespace
