// One access of one thread to one granule of memory, and what is remembered of a granule.
#pragma once

#include <cstdint>

namespace simt {
namespace detail {

constexpr int kThreadBits = 10;  // of a stamp: the thread of the block
constexpr int kEpochBits = 22;   // of a stamp: how many block barriers it has passed

enum AccessFlags : uint32_t {
    kWrites = 1,
    kAtomic = 2,
    kOfBlock = 4,   // an atomic of block scope
    kPending = 8,   // the destination of an asynchronous copy that was not waited for
    kVolatile = 16  // atomic as far as races go, and a plain read or write in words
};
constexpr int kFlagBits = 8;

// Where in the source: an instruction's offset in the module, or a registered Site.
using Where = uint32_t;

// Stamps grow with block serial, then epoch, then thread; a serial is given once in a process, so
// what was left by an earlier block or launch shows by comparison, and nothing is ever cleared.
struct Access {
    uint64_t stamp;  // 0: nobody
    uint32_t clock;  // the thread's clock, above the flags
    Where where;

    uint32_t serial() const { return uint32_t(stamp >> 32); }
    uint32_t epoch() const { return uint32_t(stamp) >> kThreadBits; }
    unsigned thread() const { return unsigned(stamp) & ((1u << kThreadBits) - 1); }
    uint32_t flags() const { return clock & ((1u << kFlagBits) - 1); }
    uint32_t time() const { return clock >> kFlagBits; }
    bool operator==(const Access& that) const {
        return ((stamp ^ that.stamp) | (clock ^ that.clock) | (where ^ that.where)) == 0;
    }
};

// The last write, and two other accesses since: reads, or an atomic update that another thread's has
// hidden. Of many readers the two kept are as far apart as possible (lanes of a warp, warps,
// blocks), so that a later writer conflicts with one of them.
struct Cell {
    Access write;
    Access other[2];

    bool operator==(const Cell& that) const {
        return write == that.write && other[0] == that.other[0] && other[1] == that.other[1];
    }
};

constexpr uint64_t make_stamp(uint32_t serial, uint32_t epoch, unsigned thread) {
    return uint64_t(serial) << 32 | uint32_t(epoch << kThreadBits) | thread;
}

}  // namespace detail
}  // namespace simt
