#include "check/order.h"

#include <algorithm>

namespace simt {
namespace detail {
namespace {

constexpr uint32_t kFirst = 1;
constexpr uint32_t kLastClock = (1u << (32 - kFlagBits)) - 1024;

}  // namespace

void Order::begin_launch() { released_.clear(); }

void Order::begin_block(uint32_t serial, int threads) {
    serial_ = serial;
    epoch_ = 0;
    full_ = false;
    if (threads != threads_ || dirty_) {
        threads_ = threads;
        clocks_.assign(std::size_t(threads), kFirst);
        warp_rows_.assign(std::size_t(threads) * 32, 0);
        dirty_ = false;
    }
    if (any_fence_ || fences_.size() < std::size_t(threads)) {
        fences_.assign(std::size_t(threads), {});
        block_fences_ = {};
        any_fence_ = false;
    }
    if (any_foreign_ || foreign_.size() < std::size_t(threads)) {
        foreign_.assign(std::size_t(threads), {});
        any_foreign_ = false;
    }
    block_foreign_.clear();
    phases_.clear();
}

void Order::enter(unsigned thread) {
    thread_ = thread;
    stamp_ = make_stamp(serial_, epoch_, thread);
    row_ = row_of(thread);
}

void Order::block_barrier() {
    ++epoch_;
    full_ = false;  // the epoch says all that the rows said of other warps
    if (dirty_ && *std::max_element(clocks_.begin(), clocks_.end()) > kLastClock) {
        std::fill(clocks_.begin(), clocks_.end(), kFirst);
        std::fill(warp_rows_.begin(), warp_rows_.end(), 0u);
    }
    if (any_foreign_) {
        for (Knowledge& own : foreign_) {
            add(block_foreign_, own);
            own.clear();
        }
        any_foreign_ = false;
    }
    if (any_fence_) {
        for (Released& own : fences_) {
            add(block_fences_, own);
            own = {};
        }
    }
    enter(thread_);
}

void Order::warp_barrier(int warp, uint32_t lanes) {
    dirty_ = true;
    const unsigned first = unsigned(warp) * 32;
    const std::size_t width = full_ ? std::size_t(threads_) : 32;
    const unsigned self = full_ ? first : 0;  // of lane 0 in a row
    joined_.assign(width, 0);
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        const uint32_t* row = row_of(first + unsigned(__builtin_ctz(rest)));
        for (std::size_t i = 0; i < width; ++i) joined_[i] = std::max(joined_[i], row[i]);
    }
    Knowledge together;
    Released fenced;
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        const unsigned lane = unsigned(__builtin_ctz(rest));
        joined_[self + lane] = std::max(joined_[self + lane], clocks_[first + lane]);
        if (any_foreign_) add(together, foreign_[first + lane]);
        if (any_fence_) add(fenced, fences_[first + lane]);
    }
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        const unsigned thread = first + unsigned(__builtin_ctz(rest));
        std::copy(joined_.begin(), joined_.end(), row_of(thread));
        ++clocks_[thread];
        if (any_foreign_) foreign_[thread] = together;
        if (any_fence_) fences_[thread] = fenced;
    }
}

void Order::make_full() {
    dirty_ = true;
    if (full_) return;
    full_rows_.assign(std::size_t(threads_) * unsigned(threads_), 0);
    for (int t = 0; t < threads_; ++t) {
        const int first = t / 32 * 32;
        const uint32_t* row = &warp_rows_[std::size_t(t) * 32];
        const int lanes = std::min(32, threads_ - first);
        std::copy(row, row + lanes,
                  &full_rows_[std::size_t(t) * unsigned(threads_) + unsigned(first)]);
    }
    full_ = true;
    row_ = row_of(thread_);
}

// ---- Fences and atomics -------------------------------------------------------------------------

std::shared_ptr<const Order::Snapshot> Order::snapshot() const {
    auto taken = std::make_shared<Snapshot>();
    taken->serial = serial_;
    taken->epoch = epoch_;
    taken->row.assign(std::size_t(threads_), 0);
    const std::size_t first = full_ ? 0 : thread_ / 32 * 32;
    const std::size_t width =
        full_ ? std::size_t(threads_) : std::size_t(std::min(32, threads_ - int(first)));
    std::copy(row_, row_ + width, taken->row.begin() + std::ptrdiff_t(first));
    taken->row[thread_] = clocks_[thread_];
    return taken;
}

void Order::fence(Scope scope) {
    dirty_ = any_fence_ = true;
    Released& visible = fences_[thread_];
    const auto now = snapshot();
    add(visible.to_block, now);
    if (scope != Scope::block) {
        add(visible.to_device, now);
        add(visible.to_device, block_foreign_);
        add(visible.to_device, foreign_[thread_]);
    }
    ++clocks_[thread_];
}

void Order::atomic(uintptr_t address, Scope scope, bool reads, bool writes) {
    if (reads && !released_.empty()) acquire(address, scope);
    if (!writes || !any_fence_) return;
    release(fences_[thread_], address, scope);
    release(block_fences_, address, scope);
}

void Order::acquire(uintptr_t address, Scope scope) {
    const auto found = released_.find(address);
    if (found == released_.end()) return;
    const auto own = found->second.to_block.find(serial_);
    if (own != found->second.to_block.end()) learn(*own->second);
    if (scope == Scope::block) return;
    for (const auto& entry : found->second.to_device) {
        if (entry.first == serial_) continue;
        add(foreign_[thread_], entry.second);
        any_foreign_ = true;
    }
}

void Order::release(const Released& visible, uintptr_t address, Scope scope) {
    if (visible.to_block.empty()) return;
    Released& there = released_[address];
    add(there.to_block, visible.to_block);
    if (scope != Scope::block) add(there.to_device, visible.to_device);
}

void Order::arrive(uintptr_t barrier) {
    dirty_ = true;
    Phase& phase = phases_[barrier].under_way;
    add(phase.known, snapshot());
    add(phase.fenced, fences_[thread_]);
    add(phase.foreign, foreign_[thread_]);
    ++clocks_[thread_];
}

void Order::complete(uintptr_t barrier) {
    Phases& phases = phases_[barrier];
    phases.complete = std::move(phases.under_way);
    phases.under_way = {};
}

void Order::pass(uintptr_t barrier) {
    const auto found = phases_.find(barrier);
    if (found == phases_.end() || !found->second.complete.known) return;
    const Phase& phase = found->second.complete;
    learn(*phase.known);
    add(fences_[thread_], phase.fenced);
    add(foreign_[thread_], phase.foreign);
    any_foreign_ |= !phase.foreign.empty();
}

// From a thread of the same block.
void Order::learn(const Snapshot& snapshot) {
    if (snapshot.epoch != epoch_) return;
    make_full();
    uint32_t* row = row_of(thread_);
    for (std::size_t i = 0; i < snapshot.row.size(); ++i)
        row[i] = std::max(row[i], snapshot.row[i]);
}

void Order::add(Released& all, const Released& more) {
    add(all.to_block, more.to_block);
    add(all.to_device, more.to_device);
}

void Order::add(Knowledge& knowledge, const Knowledge& more) {
    for (const auto& entry : more) add(knowledge, entry.second);
}

void Order::add(Knowledge& knowledge, const std::shared_ptr<const Snapshot>& snapshot) {
    add(knowledge[snapshot->serial], snapshot);
}

// Keeps the later of the two, or what both know together.
void Order::add(std::shared_ptr<const Snapshot>& place,
                const std::shared_ptr<const Snapshot>& snapshot) {
    if (!place || place->epoch < snapshot->epoch) {
        place = snapshot;
    } else if (place->epoch == snapshot->epoch && place != snapshot) {
        auto both = std::make_shared<Snapshot>(*place);
        for (std::size_t i = 0; i < both->row.size(); ++i)
            both->row[i] = std::max(both->row[i], snapshot->row[i]);
        place = both;
    }
}

bool Order::covers(const Knowledge& knowledge, const Access& past) {
    const auto found = knowledge.find(past.serial());
    if (found == knowledge.end()) return false;
    const Snapshot& known = *found->second;
    if (past.epoch() != known.epoch) return past.epoch() < known.epoch;
    return known.row[past.thread()] >= past.time();
}

bool Order::acquired(const Access& past) const {
    return covers(block_foreign_, past) || (any_foreign_ && covers(foreign_[thread_], past));
}

}  // namespace detail
}  // namespace simt
