// What the examples share: an array that host and kernel can reach, and a launch that is waited for.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "simt/memory.h"
#include "simt/simt.h"

template <class T>
class Array {
   public:
    Array(const char* name, std::size_t size, simt::Role role)
#if defined(SIMT_CHECKED)
        : size_(size),
          data_(new T[size]()),
          registered_({{name, data_, sizeof(T), {int64_t(size)}, {1}, role}}){}
#else
        : size_(size) {
        static_cast<void>(name), static_cast<void>(role);
#if defined(SIMT_DEVICE)
        cudaMallocManaged(&data_, size * sizeof(T));
        for (std::size_t i = 0; i < size; ++i) data_[i] = T();
#else
        data_ = new T[size]();
#endif
    }
#endif
          ~Array() {
#if defined(SIMT_DEVICE)
        cudaFree(data_);
#else
        delete[] data_;
#endif
    }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;

    T* data() { return data_; }
    T& operator[](std::size_t i) { return data_[i]; }
    std::size_t size() const { return size_; }

   private:
    std::size_t size_;
    T* data_;
#if defined(SIMT_CHECKED)
    simt::Registered registered_;
#endif
};

inline void wait_for_kernel() {
#if defined(SIMT_DEVICE)
    simt::detail::throw_if_failed(cudaDeviceSynchronize(), "the example");
#endif
}

// Runs `example` under several schedules; prints what is wrong with it.
template <class Example>
int run_example(Example example) {
    try {
#if defined(SIMT_HOST)
        for (const simt::Policy policy : {simt::Policy::RoundRobin, simt::Policy::Reverse,
                                          simt::Policy::Random, simt::Policy::Priority}) {
            simt::set_schedule({policy, 1});
            if (!example()) return std::puts("wrong result"), 1;
        }
#else
        if (!example()) return std::puts("wrong result"), 1;
#endif
    } catch (const simt::LaunchError& error) {
        return std::puts(error.what()), 1;
    }
    return std::puts("right"), 0;
}
