// Runs the threads of one block after another: threads are fibers, blocks reuse them.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <vector>

#include "block/fault.h"
#include "block/priorities.h"
#include "block/random.h"
#include "block/shared_arena.h"
#if defined(SIMT_CHECKED)
#include "check/checker.h"
#else
#include "check/unchecked.h"
#endif
#include "fiber/context.h"
#include "fiber/stack_slab.h"
#include "simt/error.h"
#include "simt/schedule.h"
#include "simt/vocabulary.h"

namespace simt {
namespace detail {

constexpr int kLanes = 32;
constexpr int kMaxThreads = 1024;
constexpr int kMaxWarps = kMaxThreads / kLanes;

class BlockRunner;
struct Lane;

// A stack on which threads run. A thread that never waits leaves it to the next one, so a kernel
// without collectives needs a single fiber. No fiber outlives a block: an idle one is just memory.
struct Fiber {
    Context context;
    BlockRunner* runner;
    Lane* lane;  // the thread it runs
    Stack stack;
};

// One CUDA thread.
struct Lane : ThreadView {
    Fiber* fiber;  // once the thread has started
    BlockRunner* runner;
    int warp;
};

// The lanes that wait at one collective for the rest of their mask.
struct Gathering {
    uint32_t mask;
    uint32_t arrived;
    const Collective* kind;
    Site site;
};

struct Warp {
    uint32_t exists;              // the last warp of a block may be partial
    uint32_t started;             // has a fiber, or had one
    uint32_t ready;               // could run: not waiting, not returned
    uint32_t exited;              // returned from the kernel
    uint8_t by_priority[kLanes];  // the lanes that exist, the highest first
    int passed;                   // so many of these are not ready for certain
    int gathering_count;
    Gathering gatherings[kLanes];
    Exchange exchange;
};

struct BlockBarrier {
    int arrived;
    int predicates;  // true ones so far
    int result;      // of the last completed barrier
    const char* name;
    Site site;
    const Lane* first;  // to arrive
};

// A thread that waits for others in a numbered barrier or an mbarrier.
struct Waiter {
    Lane* lane;
    const void* barrier;
    const char* name;
    Site site;
};

constexpr int kNamedBarriers = 16;
struct NamedBarrier {
    int arrived;
    int expected;
    Site site;  // of the first to arrive
};

struct AsyncCopy {
    void* to;
    const void* from;  // nullptr: zeros
    int bytes;
    bool ended = false;

    void end();
};

class BlockRunner {
   public:
    BlockRunner();
    ~BlockRunner() = default;

    void begin_launch(const LaunchRequest& request, const Schedule& schedule);

    // Runs one block to its end. False: it was given up, see fault().
    bool run(uint64_t block);
    const Fault& fault() const { return fault_; }

    Stats take_stats();
    const Checker& checker() const { return checker_; }

    // ---- What the checker asks for ----
    void at_access();  // another thread may go on here, as the schedule says
    const Lane* owner_of_stack(uintptr_t address) const;

    // ---- The end of a block, from a place that may not throw ----
    // What is on its stacks is not destroyed, so nothing that owns memory may be: what happened is
    // noted before. Without a note, the checker tells it.
    void note(const Lane& self, const char* kind, const std::string& text, const char* advice,
              Site site);
    [[noreturn]] void abandon(const Lane& self);

    // ---- What a running thread asks for, through the functions of runtime.h ----
    int barrier(Lane& self, const char* name, bool predicate, Site site);
    uint64_t collective(Lane& self, const Collective& kind, uint32_t mask, uint64_t value,
                        uint32_t argument, Site site);
    uint64_t shuffle(Lane& self, const Collective& kind, uint32_t mask, uint64_t value,
                     uint32_t source, Site site);
    // Another thread goes on, since this one polls: so many times since the last. True: too often
    // while no thread waited or returned, so what they poll for will not come.
    bool poll(Lane& self, unsigned times);
    [[noreturn]] void fail_polling(const Lane& self, Site site);
    std::string who_waits_where() const;
    void* shared_array(const Lane& self, const SharedArray& array);
    void* dynamic_shared(const Lane& self, std::size_t offset, std::size_t alignment, Site site);
    bool has_whole_warp(const Lane& self) const { return warps_[self.warp].exists == ~uint32_t(0); }
    void begin_copy(const Lane& self, const AsyncCopy& copy);
    void commit_copies(const Lane& self);
    void wait_for_copies(const Lane& self, int groups, Site site);
    void named_barrier(Lane& self, int id, int threads, bool wait, Site site);
    void init_mbarrier(uint64_t* barrier, int count);
    void arrive_at_mbarrier(Lane& self, uint64_t* barrier, Site site);
    bool test_mbarrier(Lane& self, uint64_t* barrier, int parity, bool wait, Site site);
    [[noreturn]] void fail(const Lane& self, const char* kind, const std::string& text,
                           const char* advice, Site site);

   private:
    // Scheduling (block_runner.cpp)
    void lay_out_threads(dim3 block);
    void begin_block(uint64_t block);
    void become(Lane& lane);
    static int number_of(const Lane& lane) { return lane.warp * kLanes + int(lane.lane); }
    Lane& lane_at(int warp, unsigned lane) { return lanes_[std::size_t(warp * kLanes) + lane]; }
    Lane* pick_next(const Lane& self);
    Lane* pick_random();
    Lane* pick_by_priority();
    Lane& first_by_priority(int warp);
    uint32_t priority(const Lane& lane) const;
    void rank_lanes();
    void lower_priority(const Lane& self);
    bool step(const Lane& self);
    Lane* pick_by(Random& random);
    Lane& pick_after(const Lane& self, bool leave_warp);
    void make_ready(int warp, uint32_t lanes);
    void make_unready(const Lane& self);
    void wait(Lane& self);
    void yield(Lane& self);
    void let_others_run(Lane& self);
    void resume(Lane& next, Context& from);
    bool has_started(const Lane& lane) const { return warps_[lane.warp].started >> lane.lane & 1; }
    void start_on(Fiber& fiber, Lane& lane);
    Fiber& take_fiber();
    void add_fibers();
    void reclaim_fibers();
    [[noreturn]] static void fiber_main(void* fiber);
    Context& run_threads(Fiber& fiber);
    Lane* end_thread(Lane& self);

    // Barriers and collectives (barrier.cpp, collective.cpp)
    void complete_barrier();
    Gathering* find_gathering(Warp& warp, uint32_t mask);
    Gathering& open_gathering(Lane& self, const Collective& kind, uint32_t mask, Site site);
    void check_other_masks(const Lane& self, const Collective& kind, uint32_t mask, Site site);
    void complete_gathering(Warp& warp, int warp_index, Gathering& gathering);

    // Copies under way, barriers of some threads (async_copy.cpp, phased_barriers.cpp)
    struct CopyQueue {
        std::vector<AsyncCopy> copies;
        std::vector<std::size_t> groups;  // where each ends among the copies

        void clear() {
            copies.clear();
            groups.clear();
        }
    };
    CopyQueue& copies_of(const Lane& self);
    void end_copies_early(const Lane& self);
    void require_mbarrier(const Lane& self, uint64_t* barrier, Site site);
    void wait_on(Lane& self, const void* barrier, const char* name, Site site);
    void wake(const void* barrier);

    // Faults (fault.cpp)
    Fault describe(const char* kind, const std::string& thread, Site site, const std::string& text,
                   const char* advice) const;
    Fault describe_exception(const Lane& self, const char* what) const;
    Fault describe_damage(const SharedArena::Damage& damage) const;
    [[noreturn]] void fail_divergent_barrier(const Lane& self, const char* name, Site site);
    [[noreturn]] void fail_barrier_after_exit(const Lane& self);
    [[noreturn]] void fail_bad_mask(const Lane& self, const Collective& kind, uint32_t mask,
                                    Site site);
    [[noreturn]] void fail_exit_in_mask(const Lane& self, const Gathering& gathering);
    [[noreturn]] void fail_mismatch(const Lane& self, const Collective& kind, uint32_t mask,
                                    Site site, const Gathering& other);
    [[noreturn]] void fail_source(const Lane& self, const Collective& kind, uint32_t mask,
                                  uint32_t source, Site site);
    [[noreturn]] void fail_deadlock(const Lane& self);

    const LaunchRequest* request_ = nullptr;
    Policy policy_ = Policy::RoundRobin;
    uint64_t seed_ = 0;
    Random random_;
    Random preemptions_;
    Random early_ends_;
    unsigned until_early_end_ = 0;
    uint32_t preemption_ = 0;  // share of accesses, of 2^32
    Priorities priorities_;
    Checker checker_{*this};

    BlockView view_{};
    int thread_count_ = 0;
    int warp_count_ = 0;
    int alive_ = 0;             // threads that have not returned
    uint32_t ready_warps_ = 0;  // those with a ready lane
    BlockBarrier barrier_{};
    NamedBarrier named_barriers_[kNamedBarriers] = {};
    bool named_in_use_ = false;
    std::vector<Waiter> waiters_;
    std::vector<CopyQueue> copies_;  // by thread; kept for the next block, which needs as much
    bool copies_in_use_ = false;
    std::vector<Lane> lanes_;
    std::unique_ptr<Warp[]> warps_;
    SharedArena shared_;

    Context main_;  // of the OS thread
    std::vector<std::unique_ptr<StackSlab>> slabs_;
    std::deque<Fiber> fibers_;
    std::vector<Fiber*> idle_fibers_;

    uint64_t polls_ = 0;  // since a thread waited or returned
    std::chrono::steady_clock::time_point polling_since_;
    bool given_up_ = false;
    Fault fault_;
    Stats stats_;
};

std::string kernel_name(const LaunchRequest& request);

inline Lane& current_lane() { return *static_cast<Lane*>(const_cast<ThreadView*>(current)); }

}  // namespace detail
}  // namespace simt
