// Seeded randomness of schedules: the same on every machine.
#pragma once

#include <cstdint>

namespace simt {
namespace detail {

// splitmix64
inline uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

class Random {
   public:
    explicit Random(uint64_t seed = 0) : state_(mix(seed)) {}

    // Uniform in [0, bound), bound > 0.
    unsigned below(unsigned bound) {
        state_ += 0x9e3779b97f4a7c15u;
        return unsigned(((mix(state_) >> 32) * bound) >> 32);
    }

   private:
    uint64_t state_;
};

// A random permutation of [0, size) that needs no memory: a Feistel network over the next power of
// four, walked until it lands inside.
class Permutation {
   public:
    Permutation(uint64_t size, uint64_t seed) : size_(size), seed_(seed) {
        while (half_bits_ < 32 && (uint64_t(1) << (2 * half_bits_)) < size) ++half_bits_;
    }

    uint64_t operator()(uint64_t index) const {
        do index = step(index);
        while (index >= size_);
        return index;
    }

   private:
    uint64_t step(uint64_t index) const {
        const uint64_t mask = (uint64_t(1) << half_bits_) - 1;
        uint64_t left = index >> half_bits_, right = index & mask;
        for (uint64_t round = 0; round < 4; ++round) {
            const uint64_t swapped = left ^ (mix(right + (round << 32) + mix(seed_)) & mask);
            left = right;
            right = swapped;
        }
        return left << half_bits_ | right;
    }

    uint64_t size_;
    uint64_t seed_;
    int half_bits_ = 1;
};

}  // namespace detail
}  // namespace simt
