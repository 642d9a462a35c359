// What the parts of mma_decode have in common: the sizes of a tile, and what the launcher passes.
#pragma once

#include <cstdint>

namespace yaie::paged_attention {

// kColumns: D, rounded up; the columns beyond D are zero.
template <class Element, int kColumns>
struct DecodeTile {
    using T = Element;
    static constexpr int kDim = kColumns;
    static constexpr int kRows = 16;  // of an mma
    static constexpr int kKeys = 64;
    static constexpr int kWarps = 4;
    static constexpr int kThreads = 32 * kWarps;
    static constexpr int kStages = kDim <= 128 ? 3 : 2;
    static constexpr int kChunk = 8;  // elements of 16 bytes, which one copy moves
    static constexpr int kChunks = kDim / kChunk;
    static constexpr int kKeysAtOnce = kThreads / kChunks;  // that all threads copy together
    static constexpr int kTile = kKeys * kDim;              // elements of K or of V in a stage
    static constexpr int kQueryBytes = kRows * kDim * sizeof(T);
    static constexpr int kStageBytes = kStages * 2 * kTile * sizeof(T);
    static constexpr int kSharedBytes = kStageBytes + kStages * kQueryBytes;
    static_assert(kKeysAtOnce % 4 == 0 && kThreads >= kKeys, "a thread a key");
    static_assert(kWarps * kRows * kDim * sizeof(float) <= 2 * kTile * sizeof(T),
                  "the rows of all warps are merged in the stage that was read last");

    // What a warp adds at once: its 16 keys of a tile.
    struct Warp {
        using T = Element;
        static constexpr int kDim = kColumns;
        static constexpr int kChunk = 8;
        static constexpr int kMmaRows = 1;
        static constexpr int kKeys = 64 / kWarps;
    };
};

struct DecodeParams {
    const void* q;
    int64_t q_stride, q_head_stride;
    int heads, group;
    bool wide_queries;  // rows of q start at multiples of 16 bytes
    void* out;          // T [T,Hq,D]
    float* lse;         // [T,Hq]
    float* part_out;    // [2 * blocks,16,D]: slot 2c holds the piece with which block c begins,
    float* part_lse;    // [2 * blocks,16]    slot 2c + 1 the one that begins a unit in block c
    int* begun;         // [blocks,5]: a Begun of each block
};

}  // namespace yaie::paged_attention
