// What is ordered before what, in one launch.
//
// Threads of a block are ordered by __syncthreads: an access of an earlier epoch precedes. Within an
// epoch every thread has a clock and a row: how far it knows the other threads' clocks. Rows cover
// the thread's warp until something orders threads of different warps (a named barrier, an mbarrier,
// a fence with an atomic); then, up to the next block barrier, they cover the block. Blocks are
// ordered by a fence of device scope before an atomic, and an atomic that sees it.
// Shuffles, votes and the like order nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "check/access.h"
#include "simt/vocabulary.h"

namespace simt {
namespace detail {

class Order {
   public:
    void begin_launch();
    void begin_block(uint32_t serial, int threads);
    void enter(unsigned thread);

    uint64_t stamp() const { return stamp_; }
    uint32_t clock() const { return clocks_[thread_] << kFlagBits; }

    // Whether an access of this launch comes before whatever the current thread does now.
    __attribute__((always_inline)) bool precedes(const Access& past) const {
        const uint64_t difference = past.stamp ^ stamp_;
        if (difference >> 32) return acquired(past);
        if (difference == 0 || difference >> kThreadBits) return true;
        if (full_) return row_[past.thread()] >= past.time();
        return difference < 32 && row_[past.thread() & 31] >= past.time();
    }
    bool same_block(const Access& past) const { return past.serial() == serial_; }

    void block_barrier();
    void warp_barrier(int warp, uint32_t lanes);
    void fence(Scope scope);
    // An atomic operation at an address. One that reads sees what others released there; one that
    // writes releases what a fence has made visible: a fence of this thread, or of others before a
    // barrier with it.
    void atomic(uintptr_t address, Scope scope, bool reads, bool writes);
    // A barrier of some threads: who passes a phase that is complete knows what those knew who
    // arrived in it.
    void arrive(uintptr_t barrier);
    void complete(uintptr_t barrier);
    void pass(uintptr_t barrier);

   private:
    // What a thread knew at a fence.
    struct Snapshot {
        uint32_t serial;
        uint32_t epoch;
        std::vector<uint32_t> row;  // a clock for each thread of the block
    };
    using Knowledge = std::unordered_map<uint32_t, std::shared_ptr<const Snapshot>>;  // by serial
    struct Released {
        Knowledge to_block;   // to threads of the block that is the key
        Knowledge to_device;  // to everyone
    };

    bool acquired(const Access& past) const;
    void acquire(uintptr_t address, Scope scope);
    void release(const Released& visible, uintptr_t address, Scope scope);
    static bool covers(const Knowledge& knowledge, const Access& past);
    static void add(Released& all, const Released& more);
    static void add(Knowledge& knowledge, const Knowledge& more);
    static void add(Knowledge& knowledge, const std::shared_ptr<const Snapshot>& snapshot);
    static void add(std::shared_ptr<const Snapshot>& place,
                    const std::shared_ptr<const Snapshot>& snapshot);
    std::shared_ptr<const Snapshot> snapshot() const;
    void learn(const Snapshot& snapshot);
    void make_full();
    uint32_t* row_of(unsigned thread) {
        return full_ ? &full_rows_[std::size_t(thread) * unsigned(threads_)]
                     : &warp_rows_[std::size_t(thread) * 32];
    }

    uint32_t serial_ = 0;
    uint32_t epoch_ = 0;
    unsigned thread_ = 0;
    int threads_ = 0;
    uint64_t stamp_ = 0;
    const uint32_t* row_ = nullptr;  // of the current thread
    bool full_ = false;              // rows cover the block
    bool dirty_ = false;             // some row or clock is not as at the start of a block
    std::vector<uint32_t> clocks_;
    std::vector<uint32_t> warp_rows_;
    std::vector<uint32_t> full_rows_;
    std::vector<uint32_t> joined_;

    std::vector<Released> fences_;    // by thread: what its last fences made visible
    Released block_fences_;           // what all fences before the last block barrier did
    std::vector<Knowledge> foreign_;  // by thread: other blocks, acquired since the last barrier
    Knowledge block_foreign_;         // what all threads of the block have known since a barrier
    bool any_foreign_ = false;
    bool any_fence_ = false;
    std::unordered_map<uintptr_t, Released> released_;  // by address
    struct Phase {
        std::shared_ptr<const Snapshot> known;
        Released fenced;
        Knowledge foreign;
    };
    struct Phases {
        Phase under_way, complete;
    };
    std::unordered_map<uintptr_t, Phases> phases_;  // by barrier
};

}  // namespace detail
}  // namespace simt
