#include "launch/process.h"

#include <pthread.h>

#include <cstdio>
#include <stdexcept>

namespace simt {
namespace detail {
namespace {

Process* the_process = nullptr;

void begin_child() {
    const Schedule inherited = the_process->schedule;
    the_process = new Process;
    the_process->schedule = inherited;
}

Process* begin_process() {
    the_process = new Process;
    pthread_atfork(nullptr, nullptr, begin_child);
    return the_process;
}

void add(Stats& total, const Stats& more) {
    total.launches += more.launches;
    total.blocks += more.blocks;
    total.threads += more.threads;
    total.switches += more.switches;
    total.collectives += more.collectives;
    total.barriers += more.barriers;
    total.accesses += more.accesses;
}

}  // namespace

Process& process() {
    static Process* const first = begin_process();
    static_cast<void>(first);
    return *the_process;
}

RunnerLease::RunnerLease() {
    {
        const std::lock_guard<std::mutex> lock(process().mutex);
        auto& idle = process().idle_runners;
        if (!idle.empty()) {
            runner_ = std::move(idle.back());
            idle.pop_back();
        }
    }
    if (!runner_) runner_ = std::make_unique<BlockRunner>();
}

RunnerLease::~RunnerLease() {
    const std::lock_guard<std::mutex> lock(process().mutex);
    add(process().stats, runner_->take_stats());
    process().idle_runners.push_back(std::move(runner_));
}

}  // namespace detail

namespace detail {

std::string to_string(const Schedule& schedule) {
    const bool drawn = schedule.policy == Policy::Random || schedule.policy == Policy::Priority;
    std::string text = schedule.policy == Policy::RoundRobin ? "round-robin"
                       : schedule.policy == Policy::Reverse  ? "reverse"
                       : schedule.policy == Policy::Random   ? "random"
                                                             : "priority";
    if (schedule.policy == Policy::Priority) text += " of depth " + std::to_string(schedule.depth);
    if (drawn || schedule.preemption > 0) text += ", seed " + std::to_string(schedule.seed);
    if (schedule.preemption > 0) {
        char rate[32];
        std::snprintf(rate, sizeof rate, ", preemption %g", schedule.preemption);
        text += rate;
    }
    return text;
}

}  // namespace detail

bool is_checked() {
#if defined(SIMT_CHECKED)
    return true;
#else
    return false;
#endif
}

void set_schedule(const Schedule& schedule) {
    if (schedule.depth < 1 || !(schedule.preemption >= 0 && schedule.preemption <= 1))
        throw std::invalid_argument("a schedule's depth is at least 1, its preemption in [0, 1]");
    if (schedule.preemption > 0 && !is_checked())
        throw std::invalid_argument("only the checked build preempts threads at accesses");
    const std::lock_guard<std::mutex> lock(detail::process().mutex);
    detail::process().schedule = schedule;
}

Schedule schedule() {
    const std::lock_guard<std::mutex> lock(detail::process().mutex);
    return detail::process().schedule;
}

Stats stats() {
    const std::lock_guard<std::mutex> lock(detail::process().mutex);
    return detail::process().stats;
}

}  // namespace simt
