// Transposes a matrix through a tile in shared memory, so that reads and writes are both coalesced.
// Textbook CUDA but for the launch.
#include "array.h"

constexpr int kTile = 32;

__global__ void transpose(const float* in, float* out, int rows, int columns) {
    __shared__ float tile[kTile][kTile + 1];  // the extra column avoids bank conflicts
    const int x = blockIdx.x * kTile + threadIdx.x, y = blockIdx.y * kTile;
    for (int j = threadIdx.y; j < kTile; j += blockDim.y)
        if (x < columns && y + j < rows) tile[j][threadIdx.x] = in[(y + j) * columns + x];
    __syncthreads();
    const int tx = blockIdx.y * kTile + threadIdx.x, ty = blockIdx.x * kTile;
    for (int j = threadIdx.y; j < kTile; j += blockDim.y)
        if (tx < rows && ty + j < columns) out[(ty + j) * rows + tx] = tile[threadIdx.x][j];
}

static bool example() {
    const int rows = 45, columns = 70;
    Array<float> in("in", rows * columns, simt::Role::input);
    Array<float> out("out", rows * columns, simt::Role::result);
    for (int i = 0; i < rows * columns; ++i) in[i] = float(i);
    const dim3 grid((columns + kTile - 1) / kTile, (rows + kTile - 1) / kTile), block(kTile, 8);
    SIMT_LAUNCH(transpose, grid, block, 0, nullptr, in.data(), out.data(), rows, columns);
    wait_for_kernel();
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < columns; ++c)
            if (out[c * rows + r] != in[r * columns + c]) return false;
    return true;
}

int main() { return run_example(example); }
