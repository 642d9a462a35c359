#include "launch/process.h"

#include <pthread.h>

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

void set_schedule(const Schedule& schedule) {
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
