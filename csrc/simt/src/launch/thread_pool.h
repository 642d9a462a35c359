// OS threads that help a launch which turned out long.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>

namespace simt {
namespace detail {

class ThreadPool {
   public:
    // One call for help: up to `helpers` threads call work(), all at once.
    class Job {
       public:
        Job(ThreadPool& pool, int helpers, std::function<void()> work);
        ~Job();  // takes the call back and waits for those who came

       private:
        friend class ThreadPool;
        ThreadPool& pool_;
        const std::function<void()> work_;
        int wanted_;
        int active_ = 0;
    };

   private:
    void ensure_threads(int count);
    void serve();

    std::mutex mutex_;
    std::condition_variable call_;
    std::condition_variable finished_;
    std::deque<Job*> jobs_;  // those that still want helpers
    int threads_ = 0;
};

}  // namespace detail
}  // namespace simt
