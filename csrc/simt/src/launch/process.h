// What outlives a launch: schedule, totals, idle runners, OS threads.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "block/block_runner.h"
#include "launch/thread_pool.h"
#include "simt/schedule.h"

namespace simt {
namespace detail {

struct Process {
    std::mutex mutex;  // guards all but the pool
    Schedule schedule;
    Stats stats;
    std::vector<std::unique_ptr<BlockRunner>> idle_runners;
    ThreadPool pool;
    std::mutex checked;  // held during a launch of the checked build
};

// Never destroyed, since pool threads wait in it until the process ends. A forked child starts with
// a new one: the parent's threads are not there.
Process& process();

// A runner with its stacks and arena, kept for the next launch.
class RunnerLease {
   public:
    RunnerLease();
    ~RunnerLease();
    RunnerLease(const RunnerLease&) = delete;
    RunnerLease& operator=(const RunnerLease&) = delete;

    BlockRunner& operator*() { return *runner_; }
    BlockRunner* operator->() { return runner_.get(); }

   private:
    std::unique_ptr<BlockRunner> runner_;
};

}  // namespace detail
}  // namespace simt
