// A product of matrices: tiles arrive by cp.async, two stages, ldmatrix and mma by two warps.
#include "planted.h"

constexpr int kDepth = 16;  // of a tile

// C[16,16] = A[16,depth] · B[depth,16]; a warp takes eight columns.
__global__ void multiply(const __half* a, const __half* b, float* c, int depth) {
    SIMT_SHARED(uint4, a_tile, [2][16 * kDepth / 8]);
    SIMT_SHARED(uint4, b_tile, [2][kDepth * 16 / 8]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, tiles = depth / kDepth;
    const auto load = [&](int tile) {
        const int row = threadIdx.x % 32 / 2, part = threadIdx.x % 2;
        if (warp == 0)
            simt::cp_async<16>(&a_tile[tile % 2][row * 2 + part],
                               a + row * depth + tile * kDepth + part * 8);
        else
            simt::cp_async<16>(&b_tile[tile % 2][row * 2 + part],
                               b + (tile * kDepth + row) * 16 + part * 8);
        simt::cp_async_commit();
    };
    float sum[4] = {};
    load(0);
    for (int tile = 0; tile < tiles; ++tile) {
        if (tile + 1 < tiles) {
            load(tile + 1);
            simt::cp_async_wait<1>();
        } else {
            simt::cp_async_wait<0>();
        }
        __syncthreads();  // the tile is there
        uint32_t fa[4], fb[2];
        simt::ldmatrix<4>(fa, &a_tile[tile % 2][lane % 16 * 2 + lane / 16]);
        simt::ldmatrix_trans<2>(fb, &b_tile[tile % 2][lane % 16 * 2 + warp]);
        simt::mma_m16n8k16<__half>(sum, fa, fb, sum);
        __syncthreads();  // the tile may go
    }
    const int row = lane / 4, column = warp * 8 + lane % 4 * 2;
    for (int e = 0; e < 4; ++e) c[(row + e / 2 * 8) * 16 + column + e % 2] = sum[e];
}

static void launch() {
    const int depth = 4 * kDepth;
    Tensor<__half> a("a", {16, depth}, {}, simt::Role::input),
        b("b", {depth, 16}, {}, simt::Role::input);
    Tensor<float> c("c", {16, 16}, {}, simt::Role::result);
    SIMT_LAUNCH(multiply, 1, 64, 0, nullptr, a.data(), b.data(), c.data(), depth);
    c.check_result();
}

int main() { return run(launch); }
