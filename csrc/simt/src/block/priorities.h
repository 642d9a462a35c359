// Priorities of threads that change at a few drawn moments, as in probabilistic concurrency testing
// (PCT): a bug that takes `depth` ordered events to show is found with a probability that falls only
// with the number of steps to the power of depth - 1.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "block/random.h"

namespace simt {
namespace detail {

class Priorities {
   public:
    void set_depth(int depth) { depth_ = depth; }

    // A random order of the threads, and depth - 1 steps at which the thread that runs falls to the
    // end. How many steps a block takes is not known before, so each step is drawn in two draws: its
    // number of bits, then its bits.
    void begin_block(int threads, uint64_t seed) {
        Random random(seed);
        priority_.resize(std::size_t(threads));
        for (int i = 0; i < threads; ++i) {
            const unsigned j = random.below(unsigned(i) + 1);
            priority_[std::size_t(i)] = priority_[j];
            priority_[j] = kDrawn + uint32_t(i);
        }
        steps_ = 0;
        lowest_ = kDrawn;
        changes_.clear();
        for (int i = 1; i < depth_; ++i) {
            const unsigned bits = random.below(kMostBits);
            changes_.push_back((1u << bits) + random.below(1u << bits));
        }
    }

    uint32_t operator[](int thread) const { return priority_[std::size_t(thread)]; }

    // One step of the thread that runs. True: its priority falls now.
    bool step() {
        ++steps_;
        return std::find(changes_.begin(), changes_.end(), steps_) != changes_.end();
    }
    void lower(int thread) { priority_[std::size_t(thread)] = --lowest_; }

   private:
    static constexpr uint32_t kDrawn = 1u << 31;  // lowered ones lie below
    static constexpr unsigned kMostBits = 16;     // the last change is at step 65535 at most

    int depth_ = 3;
    uint32_t steps_ = 0;
    uint32_t lowest_ = kDrawn;
    std::vector<uint32_t> priority_;
    std::vector<uint32_t> changes_;
};

}  // namespace detail
}  // namespace simt
