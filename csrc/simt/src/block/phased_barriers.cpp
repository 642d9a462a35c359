// Barriers of some of a block's threads: numbered ones and mbarriers.
#include <algorithm>

#include "block/block_runner.h"
#include "block/site.h"
#include "simt/collective/named_barriers.h"

namespace simt {
namespace detail {
namespace {

uintptr_t key_of(const void* barrier) { return reinterpret_cast<uintptr_t>(barrier); }

// An mbarrier's 64 bits here: a mark, the parity of the phase under way, the arrivals that it needs
// and those that it still waits for.
struct Mbarrier {
    static constexpr uint64_t kMark = 0x2b7;
    uint64_t mark : 10, parity : 1, count : 20, pending : 20, unused : 13;
};
static_assert(sizeof(Mbarrier) == 8, "as large as on the device");

Mbarrier& mbarrier_at(uint64_t* barrier) { return *reinterpret_cast<Mbarrier*>(barrier); }

}  // namespace

void BlockRunner::named_barrier(Lane& self, int id, int threads, bool wait, Site site) {
    const char* const name = wait ? "named_barrier_sync" : "named_barrier_arrive";
    if (id < 0 || id >= kNamedBarriers || threads <= 0 || threads % kLanes != 0 ||
        threads > (thread_count_ + kLanes - 1) / kLanes * kLanes)
        fail(self, "bad barrier",
             std::string(name) + "(" + std::to_string(id) + ", " + std::to_string(threads) +
                 ") in a block of " + std::to_string(thread_count_) + " threads",
             "Barriers are numbered 0 to 15, and take a multiple of 32 threads, no more than the "
             "block has.",
             site);
    NamedBarrier& barrier = named_barriers_[id];
    named_in_use_ = true;
    if (barrier.arrived == 0) {
        barrier.expected = threads;
        barrier.site = site;
    } else if (barrier.expected != threads) {
        fail(self, "divergent barrier",
             std::string(name) + " for " + std::to_string(threads) + " threads, but " +
                 std::to_string(barrier.expected) + " were said at " + to_string(barrier.site),
             "All who come to a barrier must say the same number.", site);
    }
    checker_.order().arrive(key_of(&barrier));
    // Where the last warp is partial, the lanes that it never had count as its others do.
    const bool last = number_of(self) == thread_count_ - 1;
    barrier.arrived += last ? kLanes - int(self.lane) : 1;
    if (barrier.arrived >= barrier.expected) {
        barrier.arrived = 0;
        checker_.order().complete(key_of(&barrier));
        wake(&barrier);
        if (wait) checker_.order().pass(key_of(&barrier));
        let_others_run(self);
    } else if (wait) {
        wait_on(self, &barrier, name, site);
        checker_.order().pass(key_of(&barrier));
    }
}

// ---- mbarriers ----------------------------------------------------------------------------------

void BlockRunner::init_mbarrier(uint64_t* barrier, int count) {
    Mbarrier fresh{};
    fresh.mark = Mbarrier::kMark;
    fresh.count = fresh.pending = uint64_t(count);
    mbarrier_at(barrier) = fresh;
}

void BlockRunner::require_mbarrier(const Lane& self, uint64_t* barrier, Site site) {
    if (mbarrier_at(barrier).mark != Mbarrier::kMark)
        fail(self, "bad barrier", "an mbarrier that was not initialised, or was written over",
             "One thread calls mbarrier_init, then the block meets in a barrier.", site);
}

void BlockRunner::arrive_at_mbarrier(Lane& self, uint64_t* barrier, Site site) {
    require_mbarrier(self, barrier, site);
    checker_.order().arrive(key_of(barrier));
    Mbarrier& state = mbarrier_at(barrier);
    if (--state.pending > 0) return;
    state.parity ^= 1;
    state.pending = state.count;
    checker_.order().complete(key_of(barrier));
    wake(barrier);
    let_others_run(self);
}

bool BlockRunner::test_mbarrier(Lane& self, uint64_t* barrier, int parity, bool wait, Site site) {
    require_mbarrier(self, barrier, site);
    const auto complete = [&] { return int(mbarrier_at(barrier).parity) != (parity & 1); };
    while (!complete()) {
        if (!wait) return false;
        wait_on(self, barrier, "mbarrier_wait", site);
    }
    checker_.order().pass(key_of(barrier));
    return true;
}

// ---- Waiting ------------------------------------------------------------------------------------

void BlockRunner::wait_on(Lane& self, const void* barrier, const char* name, Site site) {
    waiters_.push_back({&self, barrier, name, site});
    wait(self);
}

void BlockRunner::wake(const void* barrier) {
    const auto others = std::partition(waiters_.begin(), waiters_.end(),
                                       [&](const Waiter& w) { return w.barrier != barrier; });
    for (auto waiter = others; waiter != waiters_.end(); ++waiter)
        make_ready(waiter->lane->warp, uint32_t(1) << waiter->lane->lane);
    waiters_.erase(others, waiters_.end());
}

// ---- What kernels call --------------------------------------------------------------------------

void named_barrier(int id, int threads, bool wait, Site site) {
    const OutsideKernel outside;
    Lane& self = current_lane();
    self.runner->named_barrier(self, id, threads, wait, site);
}

void init_mbarrier(uint64_t* barrier, int count, Site site) {
    note_shared_access(barrier, 8, true, site);
    const OutsideKernel outside;
    current_lane().runner->init_mbarrier(barrier, count);
}

void arrive_at_mbarrier(uint64_t* barrier, Site site) {
    note_shared_access(barrier, 8, false, site);
    const OutsideKernel outside;
    Lane& self = current_lane();
    self.runner->arrive_at_mbarrier(self, barrier, site);
}

bool test_mbarrier(uint64_t* barrier, int parity, bool wait, Site site) {
    note_shared_access(barrier, 8, false, site);
    const OutsideKernel outside;
    Lane& self = current_lane();
    return self.runner->test_mbarrier(self, barrier, parity, wait, site);
}

}  // namespace detail
}  // namespace simt
