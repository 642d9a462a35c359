#include "block/block_runner.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <iterator>
#include <numeric>

namespace simt {
namespace detail {

__thread const ThreadView* current __attribute__((tls_model("initial-exec"))) = nullptr;

namespace {

unsigned lowest(uint32_t bits) { return unsigned(__builtin_ctz(bits)); }
unsigned highest(uint32_t bits) { return 31u - unsigned(__builtin_clz(bits)); }
uint32_t above(unsigned bit) { return bit == 31 ? 0 : ~uint32_t(0) << (bit + 1); }

unsigned draw_bit(Random& random, uint32_t bits) {
    unsigned skip = random.below(unsigned(__builtin_popcount(bits)));
    while (skip--) bits &= bits - 1;
    return lowest(bits);
}

}  // namespace

BlockRunner::BlockRunner() : warps_(new Warp[kMaxWarps]()) {}

void BlockRunner::begin_launch(const LaunchRequest& request, const Schedule& schedule) {
    request_ = &request;
    fault_ = {};
    policy_ = schedule.policy;
    seed_ = schedule.seed;
    preemption_ = uint32_t(schedule.preemption * 4294967295.0);
    priorities_.set_depth(schedule.depth);
    checker_.begin_launch(request, schedule);
    main_.adopt_thread_stack();
    const dim3 old = view_.block_dim, now = request.block;
    if (lanes_.empty() || old.x != now.x || old.y != now.y || old.z != now.z) lay_out_threads(now);
    view_.grid_dim = request.grid;
}

void BlockRunner::lay_out_threads(dim3 block) {
    view_.block_dim = block;
    thread_count_ = int(block.x * block.y * block.z);
    warp_count_ = (thread_count_ + kLanes - 1) / kLanes;
    if (lanes_.size() < std::size_t(thread_count_)) lanes_.resize(std::size_t(thread_count_));
    for (int i = 0; i < thread_count_; ++i) {
        Lane& lane = lanes_[std::size_t(i)];
        const unsigned n = unsigned(i);
        lane.thread_index = {n % block.x, n / block.x % block.y, n / (block.x * block.y)};
        lane.lane = n % kLanes;
        lane.warp = i / kLanes;
        lane.block = &view_;
        lane.runner = this;
    }
    for (int w = 0; w < warp_count_; ++w) {
        const int lanes = thread_count_ - w * kLanes;
        warps_[w].exists = lanes >= kLanes ? ~uint32_t(0) : (uint32_t(1) << lanes) - 1;
    }
}

void BlockRunner::begin_block(uint64_t block) {
    const dim3 grid = view_.grid_dim;
    view_.block_index = {unsigned(block % grid.x), unsigned(block / grid.x % grid.y),
                         unsigned(block / grid.x / grid.y)};
    if (policy_ == Policy::Random) random_ = Random(seed_ ^ mix(block));
    if (policy_ == Policy::Priority) {
        priorities_.begin_block(thread_count_, seed_ ^ mix(block));
        rank_lanes();
    }
    if (preemption_) preemptions_ = Random(~seed_ ^ mix(block));
    early_ends_ = Random(seed_ + mix(~block));
    alive_ = thread_count_;
    ready_warps_ = warp_count_ == 32 ? ~uint32_t(0) : (uint32_t(1) << warp_count_) - 1;
    for (int w = 0; w < warp_count_; ++w) {
        Warp& warp = warps_[w];
        warp.ready = warp.exists;
        warp.passed = 0;
        warp.started = warp.exited = 0;
        warp.gathering_count = 0;
    }
    barrier_ = {};
    if (named_in_use_)
        std::fill(std::begin(named_barriers_), std::end(named_barriers_), NamedBarrier{});
    named_in_use_ = false;
    waiters_.clear();
    if (copies_in_use_)
        for (CopyQueue& queue : copies_) queue.clear();
    copies_in_use_ = false;
    polls_ = 0;
    given_up_ = false;
    shared_.begin_block(request_->dynamic_shared);
    checker_.begin_block(view_.block_index, thread_count_, shared_);
}

bool BlockRunner::run(uint64_t block) {
    begin_block(block);
    ++stats_.blocks;
    stats_.threads += unsigned(thread_count_);
    Lane& first = policy_ == Policy::RoundRobin ? lanes_[0] : *pick_next(lanes_[0]);
    resume(first, main_);
    current = nullptr;
    if (given_up_) {
        reclaim_fibers();
        return false;
    }
    SharedArena::Damage damage;
    if (!shared_.find_damage(&damage)) return true;
    fault_ = describe_damage(damage);
    return false;
}

Stats BlockRunner::take_stats() {
    Stats taken = stats_;
    taken.accesses = checker_.take_accesses();
    stats_ = Stats();
    return taken;
}

// ---- Who runs next ------------------------------------------------------------------------------

// nullptr when every thread waits.
Lane* BlockRunner::pick_next(const Lane& self) {
    if (!ready_warps_) return nullptr;
    switch (policy_) {
        case Policy::Random:
            return pick_random();
        case Policy::Priority:
            return pick_by_priority();
        case Policy::Reverse: {
            const int warp = int(highest(ready_warps_));
            return &lane_at(warp, highest(warps_[warp].ready));
        }
        case Policy::RoundRobin:
            break;
    }
    return &pick_after(self, /*leave_warp=*/false);
}

Lane* BlockRunner::pick_random() { return pick_by(random_); }

Lane* BlockRunner::pick_by(Random& random) {
    const int warp = int(draw_bit(random, ready_warps_));
    return &lane_at(warp, draw_bit(random, warps_[warp].ready));
}

Lane* BlockRunner::pick_by_priority() {
    Lane* best = nullptr;
    for (uint32_t warps = ready_warps_; warps; warps &= warps - 1) {
        Lane& lane = first_by_priority(__builtin_ctz(warps));
        if (!best || priority(lane) > priority(*best)) best = &lane;
    }
    return best;
}

// The ready lane of a warp that has the highest priority. The search goes on where the last one
// ended, unless lanes have become ready since: most of them are asked for one after the other.
Lane& BlockRunner::first_by_priority(int warp_number) {
    Warp& warp = warps_[warp_number];
    while (!(warp.ready >> warp.by_priority[warp.passed] & 1)) ++warp.passed;
    return lane_at(warp_number, warp.by_priority[warp.passed]);
}

// The lanes of each warp in the order of their priorities, at the start of a block.
void BlockRunner::rank_lanes() {
    for (int w = 0; w < warp_count_; ++w) {
        uint8_t* const begin = warps_[w].by_priority;
        uint8_t* const end = begin + __builtin_popcount(warps_[w].exists);
        std::iota(begin, end, uint8_t(0));
        std::sort(begin, end, [&](uint8_t a, uint8_t b) {
            return priority(lane_at(w, a)) > priority(lane_at(w, b));
        });
    }
}

// Below that of every other thread.
void BlockRunner::lower_priority(const Lane& self) {
    priorities_.lower(number_of(self));
    Warp& warp = warps_[self.warp];
    uint8_t* const end = warp.by_priority + __builtin_popcount(warp.exists);
    uint8_t* const at = std::find(warp.by_priority, end, uint8_t(self.lane));
    std::rotate(at, at + 1, end);
    warp.passed = 0;
}

uint32_t BlockRunner::priority(const Lane& lane) const { return priorities_[number_of(lane)]; }

// The next ready lane in ascending order. Unless it must leave the warp, it goes round in the warp
// as long as one is ready there: lanes of a warp that meet soon cost the fewest switches.
Lane& BlockRunner::pick_after(const Lane& self, bool leave_warp) {
    const uint32_t here = warps_[self.warp].ready;
    if (const uint32_t later = here & above(self.lane)) return lane_at(self.warp, lowest(later));
    if (here && !leave_warp) return lane_at(self.warp, lowest(here));
    const uint32_t later_warps = ready_warps_ & above(unsigned(self.warp));
    const int warp = int(lowest(later_warps ? later_warps : ready_warps_));
    return lane_at(warp, lowest(warps_[warp].ready));
}

void BlockRunner::make_ready(int warp, uint32_t lanes) {
    warps_[warp].ready |= lanes;
    warps_[warp].passed = 0;
    ready_warps_ |= uint32_t(1) << warp;
}

void BlockRunner::make_unready(const Lane& self) {
    Warp& warp = warps_[self.warp];
    warp.ready &= ~(uint32_t(1) << self.lane);
    if (!warp.ready) ready_warps_ &= ~(uint32_t(1) << self.warp);
}

// Comes back when another thread has made this one ready.
void BlockRunner::wait(Lane& self) {
    polls_ = 0;
    if (copies_in_use_) end_copies_early(self);
    make_unready(self);
    Lane* next = pick_next(self);
    if (!next) fail_deadlock(self);
    resume(*next, self.fiber->context);
}

// After a collective the last lane runs on, which saves a switch; a random schedule draws anew.
void BlockRunner::let_others_run(Lane& self) {
    if (policy_ == Policy::RoundRobin || policy_ == Policy::Reverse) return;
    if (copies_in_use_) end_copies_early(self);
    if (policy_ == Policy::Priority) step(self);
    Lane* next = pick_next(self);
    if (next != &self) resume(*next, self.fiber->context);
}

// One step of the thread that runs, by which its priority may fall: true.
bool BlockRunner::step(const Lane& self) {
    if (!priorities_.step()) return false;
    lower_priority(self);
    return true;
}

void BlockRunner::at_access() {
    Lane& self = current_lane();
    Lane* next = &self;
    if (policy_ == Policy::Priority && step(self)) next = pick_by_priority();
    if (preemption_ && preemptions_.below(~uint32_t(0)) < preemption_)
        next = policy_ == Policy::RoundRobin ? &pick_after(self, /*leave_warp=*/false)
                                             : pick_by(preemptions_);
    if (next != &self) resume(*next, self.fiber->context);
}

// Fair whatever the policy: a thread that polls must not starve the one it waits for.
void BlockRunner::yield(Lane& self) {
    Lane* next = nullptr;
    if (policy_ == Policy::Random) {
        next = pick_random();
    } else if (policy_ == Policy::Priority) {
        lower_priority(self);
        next = pick_by_priority();
    } else {
        next = &pick_after(self, /*leave_warp=*/true);
    }
    if (next != &self) resume(*next, self.fiber->context);
}

bool BlockRunner::poll(Lane& self, unsigned times) {
    using Clock = std::chrono::steady_clock;
    constexpr uint64_t kMost = 1 << 23;
    // What is polled for may come from a block that runs on another OS thread.
    const std::chrono::seconds patience(is_checked() ? 0 : 10);
    if (polls_ == 0) polling_since_ = Clock::now();
    polls_ += times;
    if (polls_ > kMost && Clock::now() - polling_since_ >= patience) return true;
    yield(self);
    return false;
}

void BlockRunner::resume(Lane& next, Context& from) {
    ++stats_.switches;
    if (!has_started(next)) start_on(take_fiber(), next);
    become(next);
    from.switch_to(next.fiber->context);
}

void BlockRunner::become(Lane& lane) {
    current = &lane;
    checker_.enter(unsigned(number_of(lane)), lane.fiber->stack);
}

// ---- Fibers -------------------------------------------------------------------------------------

void BlockRunner::start_on(Fiber& fiber, Lane& lane) {
    fiber.lane = &lane;
    lane.fiber = &fiber;
    warps_[lane.warp].started |= uint32_t(1) << lane.lane;
}

Fiber& BlockRunner::take_fiber() {
    if (idle_fibers_.empty()) add_fibers();
    Fiber& fiber = *idle_fibers_.back();
    idle_fibers_.pop_back();
    fiber.context.prepare(fiber.stack.bottom, fiber.stack.bytes, fiber_main, &fiber);
    return fiber;
}

void BlockRunner::add_fibers() {
    slabs_.push_back(std::make_unique<StackSlab>(int(fibers_.size())));
    for (int i = 0; i < StackSlab::kStacks; ++i) {
        fibers_.push_back({Context(), this, nullptr, slabs_.back()->stack(i)});
        idle_fibers_.push_back(&fibers_.back());
    }
}

// After a block was given up: its threads stay where they are, nothing on their stacks is destroyed.
void BlockRunner::reclaim_fibers() {
    idle_fibers_.clear();
    for (Fiber& fiber : fibers_) idle_fibers_.push_back(&fiber);
}

void BlockRunner::fiber_main(void* argument) {
    Fiber& fiber = *static_cast<Fiber*>(argument);
    BlockRunner& runner = *fiber.runner;
    fiber.context.arrived();
    Context& next = runner.run_threads(fiber);
    runner.idle_fibers_.push_back(&fiber);
    fiber.context.leave_to(next);
}

// Runs threads until the one whose turn it is has a stack of its own; returns where to go on.
Context& BlockRunner::run_threads(Fiber& fiber) {
    try {
        for (;;) {
            checker_.begin_kernel_code();
            request_->invoke(request_->arguments);
            checker_.end_kernel_code();
            Lane* next = end_thread(*fiber.lane);
            if (!next) return main_;
            const bool elsewhere = has_started(*next);
            if (!elsewhere) start_on(fiber, *next);
            become(*next);
            if (elsewhere) {
                ++stats_.switches;
                return next->fiber->context;
            }
        }
    } catch (const Fault& fault) {
        fault_ = fault;
    } catch (const std::exception& exception) {
        fault_ = describe_exception(*fiber.lane, exception.what());
    } catch (...) {
        fault_ = describe_exception(*fiber.lane, "not a std::exception");
    }
    checker_.end_kernel_code();
    given_up_ = true;
    return main_;
}

void BlockRunner::abandon(const Lane& self) {
    checker_.end_kernel_code();
    given_up_ = true;
    self.fiber->context.leave_to(main_);
}

const Lane* BlockRunner::owner_of_stack(uintptr_t address) const {
    for (const Fiber& fiber : fibers_)
        if (address - reinterpret_cast<uintptr_t>(fiber.stack.bottom) < fiber.stack.bytes)
            return fiber.lane;
    return nullptr;
}

// Returns whose turn it is; nullptr when the block has ended.
Lane* BlockRunner::end_thread(Lane& self) {
    Warp& warp = warps_[self.warp];
    polls_ = 0;
    make_unready(self);
    warp.exited |= uint32_t(1) << self.lane;
    for (int i = 0; i < warp.gathering_count; ++i)
        if (warp.gatherings[i].mask >> self.lane & 1) fail_exit_in_mask(self, warp.gatherings[i]);
    --alive_;
    if (alive_ == 0) return nullptr;
    if (barrier_.arrived == alive_) fail_barrier_after_exit(self);
    Lane* next = pick_next(self);
    if (!next) fail_deadlock(self);
    return next;
}

}  // namespace detail
}  // namespace simt
