#include "launch/thread_pool.h"

#include <algorithm>
#include <system_error>
#include <thread>

namespace simt {
namespace detail {

ThreadPool::Job::Job(ThreadPool& pool, int helpers, std::function<void()> work)
    : pool_(pool), work_(std::move(work)), wanted_(helpers) {
    const std::lock_guard<std::mutex> lock(pool_.mutex_);
    pool_.ensure_threads(helpers);
    pool_.jobs_.push_back(this);
    pool_.call_.notify_all();
}

ThreadPool::Job::~Job() {
    std::unique_lock<std::mutex> lock(pool_.mutex_);
    const auto self = std::find(pool_.jobs_.begin(), pool_.jobs_.end(), this);
    if (self != pool_.jobs_.end()) pool_.jobs_.erase(self);
    pool_.finished_.wait(lock, [this] { return active_ == 0; });
}

// Threads stay for later jobs. Where the system refuses one, the job gets fewer helpers.
void ThreadPool::ensure_threads(int count) {
    try {
        for (; threads_ < count; ++threads_) std::thread([this] { serve(); }).detach();
    } catch (const std::system_error&) {
    }
}

void ThreadPool::serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
        call_.wait(lock, [this] { return !jobs_.empty(); });
        Job& job = *jobs_.front();
        ++job.active_;
        if (--job.wanted_ == 0) jobs_.pop_front();
        lock.unlock();
        job.work_();
        lock.lock();
        if (--job.active_ == 0) finished_.notify_all();
    }
}

}  // namespace detail
}  // namespace simt
