// A launch: CUDA's limits, the order of blocks, helpers, the fault that stops it.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <thread>

#include "block/site.h"
#include "launch/process.h"

namespace simt {
namespace detail {
namespace {

[[noreturn]] void refuse(const LaunchRequest& request, const char* kind, const std::string& text) {
    throw LaunchError(kind, "kernel " + kernel_name(request) + " launched at " +
                                to_string(request.site) + ": " + kind + ": " + text);
}

// The limits of compute capability 8.0 and later.
void check_limits(const LaunchRequest& request) {
    const char* kind = "invalid configuration";
    const dim3 grid = request.grid, block = request.block;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0)
        refuse(request, kind, "grid " + to_string(grid) + " is empty; skip the launch instead");
    if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
        refuse(request, kind, "grid " + to_string(grid) + " exceeds (2147483647,65535,65535)");
    if (block.x == 0 || block.y == 0 || block.z == 0)
        refuse(request, kind, "block " + to_string(block) + " is empty");
    if (block.x > 1024 || block.y > 1024 || block.z > 64)
        refuse(request, kind, "block " + to_string(block) + " exceeds (1024,1024,64)");
    if (block.x * block.y * block.z > unsigned(kMaxThreads))
        refuse(request, kind, "block " + to_string(block) + " has more than 1024 threads");
    if (request.dynamic_shared > kSharedLimit)
        refuse(request, kind,
               std::to_string(request.dynamic_shared) +
                   " bytes of dynamic shared memory exceed 232448 (227 KiB)");
}

class Launch {
   public:
    Launch(const LaunchRequest& request, const Schedule& schedule)
        : request_(request),
          schedule_(schedule),
          blocks_(uint64_t(request.grid.x) * request.grid.y * request.grid.z),
          permutation_(blocks_, schedule.seed) {}

    void run() {
        std::optional<ThreadPool::Job> help;
        const int helpers = helper_count();
        const auto start = std::chrono::steady_clock::now();
        RunnerLease runner;
        runner->begin_launch(request_, schedule_);
        while (run_next_block(*runner)) {
            if (helpers > 0 && !help && std::chrono::steady_clock::now() - start > kAlone)
                help.emplace(process().pool, helpers, [this] { run_as_helper(); });
        }
        help.reset();
        if (runner->checker().found_any()) add_findings(runner->checker());
        if (fault_) throw LaunchError(fault_->kind, fault_->message);
    }

   private:
    // Waking a thread costs about as much, so shorter launches stay on the calling thread.
    static constexpr std::chrono::microseconds kAlone{20};
    // Each fiber takes two of the memory maps that the system grants a process (65,530 by default).
    static constexpr int kMaxFibers = 16 * 1024;

    // What stopped the launch comes first; it may follow from what was found before.
    void add_findings(const Checker& checker) {
        const Fault found = checker.report();
        if (fault_ && !fault_->message.empty())
            fault_->message += "\n" + found.message;
        else
            fault_ = found;
    }

    int helper_count() const {
        if (is_checked()) return 0;  // what one thread sees of another's blocks must be in order
        int threads = schedule_.threads;
        if (threads <= 0) threads = int(std::thread::hardware_concurrency());
        const int block_threads = int(request_.block.x * request_.block.y * request_.block.z);
        threads = std::min(threads, kMaxFibers / block_threads);
        return int(std::min<uint64_t>(uint64_t(std::max(threads, 1)), blocks_)) - 1;
    }

    void run_as_helper() {
        try {
            RunnerLease runner;
            runner->begin_launch(request_, schedule_);
            while (run_next_block(*runner)) {
            }
        } catch (const std::exception& exception) {
            record(0, {"out of memory", exception.what()});
        }
    }

    bool run_next_block(BlockRunner& runner) {
        if (stopped_.load(std::memory_order_relaxed)) return false;
        const uint64_t turn = next_.fetch_add(1, std::memory_order_relaxed);
        if (turn >= blocks_) return false;
        if (runner.run(block_of(turn))) return true;
        record(turn, runner.fault());
        return false;
    }

    uint64_t block_of(uint64_t turn) const {
        switch (schedule_.policy) {
            case Policy::RoundRobin:
                break;
            case Policy::Reverse:
                return blocks_ - 1 - turn;
            case Policy::Random:
            case Policy::Priority:
                return permutation_(turn);
        }
        return turn;
    }

    // Of several faults the earliest block's is kept, as with a single OS thread.
    void record(uint64_t turn, Fault fault) {
        if (!fault.message.empty()) fault.message += " Schedule: " + to_string(schedule_) + ".";
        const std::lock_guard<std::mutex> lock(fault_mutex_);
        stopped_.store(true, std::memory_order_relaxed);
        if (fault_ && fault_turn_ <= turn) return;
        fault_ = fault;
        fault_turn_ = turn;
    }

    const LaunchRequest& request_;
    const Schedule schedule_;
    const uint64_t blocks_;
    const Permutation permutation_;
    std::atomic<uint64_t> next_{0};
    std::atomic<bool> stopped_{false};
    std::mutex fault_mutex_;
    std::optional<Fault> fault_;
    uint64_t fault_turn_ = 0;
};

}  // namespace

// SIMT_LAUNCH stringises `(kernel<T, 4>)` with its parentheses.
std::string kernel_name(const LaunchRequest& request) {
    const std::string text = request.name;
    const bool parenthesised = text.size() > 2 && text.front() == '(' && text.back() == ')';
    return parenthesised ? text.substr(1, text.size() - 2) : text;
}

void launch(const LaunchRequest& request) {
    if (current) refuse(request, "nested launch", "a kernel cannot launch kernels");
    check_limits(request);
    {
        const std::lock_guard<std::mutex> lock(process().mutex);
        ++process().stats.launches;
    }
    std::unique_lock<std::mutex> one_at_a_time(process().checked, std::defer_lock);
    if (is_checked()) one_at_a_time.lock();
    Launch(request, schedule()).run();
}

}  // namespace detail
}  // namespace simt
