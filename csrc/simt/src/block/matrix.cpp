// mma.sync, ldmatrix and stmatrix: what the last lane to arrive computes for all 32.
#include <cstring>

#include "block/block_runner.h"
#include "simt/collective/matrix.h"
#include "simt/half.h"

namespace simt {
namespace detail {
namespace {

float low_half(uint32_t pair) { return half_value(uint16_t(pair)); }
float high_half(uint32_t pair) { return half_value(uint16_t(pair >> 16)); }
float low_bfloat16(uint32_t pair) { return bfloat16_value(uint16_t(pair)); }
float high_bfloat16(uint32_t pair) { return bfloat16_value(uint16_t(pair >> 16)); }

MatrixOperands& operands(const Exchange& exchange, int lane) {
    return *reinterpret_cast<MatrixOperands*>(exchange.value[lane]);
}

// Element e of the result, or of what is added to it, that a lane holds.
struct Spot {
    Spot(int lane, int e) : row(lane / 4 + e / 2 * 8), column(lane % 4 * 2 + e % 2) {}
    int row, column;
};

// Products are exact in a double, and so nearly is their sum. The innermost loops run over the result,
// which compilers turn into vector instructions that do not wait for one another.
template <int k>
void multiply(const Exchange& exchange, const double (&a)[16][k], const double (&b)[k][8]) {
    double sums[16][8];
    for (int lane = 0; lane < 32; ++lane)
        for (int e = 0; e < 4; ++e) {
            const Spot at(lane, e);
            sums[at.row][at.column] = operands(exchange, lane).c[e];
        }
    for (int i = 0; i < k; ++i)
        for (int row = 0; row < 16; ++row)
            for (int column = 0; column < 8; ++column)
                sums[row][column] += a[row][i] * b[i][column];
    for (int lane = 0; lane < 32; ++lane)
        for (int e = 0; e < 4; ++e) {
            const Spot at(lane, e);
            operands(exchange, lane).d[e] = float(sums[at.row][at.column]);
        }
}

template <float (*low)(uint32_t), float (*high)(uint32_t)>
void mma_k16(Exchange& exchange, uint32_t) {
    double a[16][16], b[16][8];
    for (int lane = 0; lane < 32; ++lane) {
        const MatrixOperands& own = operands(exchange, lane);
        const int group = lane / 4, pair = lane % 4 * 2;
        for (int r = 0; r < 4; ++r) {
            const int row = group + r % 2 * 8, column = pair + r / 2 * 8;
            a[row][column] = low(own.a[r]);
            a[row][column + 1] = high(own.a[r]);
        }
        for (int r = 0; r < 2; ++r) {
            b[pair + r * 8][group] = low(own.b[r]);
            b[pair + r * 8 + 1][group] = high(own.b[r]);
        }
    }
    multiply(exchange, a, b);
}

float tf32(uint32_t bits) { return float_from_bits(bits & 0xffffe000u); }

void mma_tf32(Exchange& exchange, uint32_t) {
    double a[16][8], b[8][8];
    for (int lane = 0; lane < 32; ++lane) {
        const MatrixOperands& own = operands(exchange, lane);
        const int group = lane / 4, member = lane % 4;
        for (int r = 0; r < 4; ++r) a[group + r % 2 * 8][member + r / 2 * 4] = tf32(own.a[r]);
        for (int r = 0; r < 2; ++r) b[member + r * 4][group] = tf32(own.b[r]);
    }
    multiply(exchange, a, b);
}

MatrixRows& rows(const Exchange& exchange, int lane) {
    return *reinterpret_cast<MatrixRows*>(exchange.value[lane]);
}

// Element e of the pair that `lane` holds of matrix m: its place in shared memory.
template <bool transposed>
char* place(const Exchange& exchange, int m, int lane, int e) {
    const int across = lane % 4 * 2 + e, down = lane / 4;
    const int row = transposed ? across : down, column = transposed ? down : across;
    return static_cast<char*>(rows(exchange, m * 8 + row).row) + column * 2;
}

template <bool transposed>
void load(Exchange& exchange, uint32_t) {
    for (int lane = 0; lane < 32; ++lane) {
        const MatrixRows& own = rows(exchange, lane);
        for (int m = 0; m < own.matrices; ++m) {
            uint16_t pair[2];
            for (int e = 0; e < 2; ++e)
                std::memcpy(&pair[e], place<transposed>(exchange, m, lane, e), 2);
            own.registers[m] = pair[0] | uint32_t(pair[1]) << 16;
        }
    }
}

template <bool transposed>
void store(Exchange& exchange, uint32_t) {
    for (int lane = 0; lane < 32; ++lane) {
        const MatrixRows& own = rows(exchange, lane);
        for (int m = 0; m < own.matrices; ++m) {
            const uint16_t pair[2] = {uint16_t(own.registers[m]), uint16_t(own.registers[m] >> 16)};
            for (int e = 0; e < 2; ++e)
                std::memcpy(place<transposed>(exchange, m, lane, e), &pair[e], 2);
        }
    }
}

constexpr uint32_t kWarp = ~uint32_t(0);

void require_whole_warp(const Lane& self, const Collective& kind, Site site) {
    if (!self.runner->has_whole_warp(self))
        self.runner->fail(self, "partial warp",
                          std::string(kind.name) + " in a warp of fewer than 32 threads",
                          "Launch whole warps.", site);
}

}  // namespace

const Collective kMmaHalf = {"mma_m16n8k16", mma_k16<low_half, high_half>, false};
const Collective kMmaBfloat16 = {"mma_m16n8k16", mma_k16<low_bfloat16, high_bfloat16>, false};
const Collective kMmaTf32 = {"mma_m16n8k8_tf32", mma_tf32, false};
const Collective kLdmatrix = {"ldmatrix", load<false>, false};
const Collective kLdmatrixTrans = {"ldmatrix_trans", load<true>, false};
const Collective kStmatrix = {"stmatrix", store<false>, false};
const Collective kStmatrixTrans = {"stmatrix_trans", store<true>, false};

void matrix(const Collective& kind, MatrixOperands operands, Site site) {
    const OutsideKernel outside;
    Lane& self = current_lane();
    require_whole_warp(self, kind, site);
    self.runner->collective(self, kind, kWarp, reinterpret_cast<uint64_t>(&operands), 0, site);
}

void move_matrices(const Collective& kind, MatrixRows rows, bool store, Site site) {
    {
        const OutsideKernel outside;
        Lane& self = current_lane();
        require_whole_warp(self, kind, site);
    }
    const bool names_a_row = int(lane_id()) < 8 * rows.matrices;
    if (names_a_row) note_shared_access(rows.row, 16, store, site);
    const OutsideKernel outside;
    Lane& self = current_lane();
    self.runner->collective(self, kind, kWarp, reinterpret_cast<uint64_t>(&rows), 0, site);
}

}  // namespace detail
}  // namespace simt
