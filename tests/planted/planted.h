// What the programs with planted bugs share: tensors, and a main that prints what was found. Under
// nvcc the same programs run on a GPU, for compute-sanitizer (tools/planted_on_gpu.py).
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "simt/memory.h"
#include "simt/simt.h"

// Where a tensor's elements lie: the host writes them to values(), and kernels get data().
#if defined(SIMT_DEVICE)
class Memory {
   public:
    Memory(std::size_t bytes, bool filled) : values_(bytes), filled_(filled) {
        simt::detail::throw_if_failed(cudaMalloc(&data_, bytes), "cudaMalloc");
    }
    ~Memory() { cudaFree(data_); }
    Memory(const Memory&) = delete;
    char* values() { return values_.data(); }
    char* data() {
        if (filled_) cudaMemcpy(data_, values_.data(), values_.size(), cudaMemcpyHostToDevice);
        filled_ = false;  // once, before the first launch
        return data_;
    }

   private:
    std::vector<char> values_;
    bool filled_;
    char* data_ = nullptr;
};
#else
class Memory {
   public:
    Memory(std::size_t bytes, bool) : data_(new (std::align_val_t(256)) char[bytes]()) {}
    ~Memory() { operator delete[](data_, std::align_val_t(256)); }
    Memory(const Memory&) = delete;
    char* values() { return data_; }
    char* data() { return data_; }

   private:
    char* data_;  // aligned as an allocator of GPU memory would
};
#endif

struct Shape {
    std::vector<int64_t> sizes, strides;

    Shape(std::vector<int64_t> sizes, std::vector<int64_t> strides)
        : sizes(std::move(sizes)), strides(std::move(strides)) {
        if (!this->strides.empty()) return;
        this->strides.resize(this->sizes.size());
        int64_t step = 1;
        for (std::size_t i = this->sizes.size(); i-- > 0; step *= this->sizes[i])
            this->strides[i] = step;
    }
    std::size_t elements() const {
        int64_t last = 0;
        for (std::size_t i = 0; i < sizes.size(); ++i) last += (sizes[i] - 1) * strides[i];
        return std::size_t(last + 1);
    }
};

template <class T>
class Tensor {
   public:
    explicit Tensor([[maybe_unused]] const char* name, std::vector<int64_t> sizes,
                    std::vector<int64_t> strides = {}, simt::Role role = simt::Role::inout)
        : shape_(std::move(sizes), std::move(strides)),
          memory_(shape_.elements() * sizeof(T),
                  role == simt::Role::input || role == simt::Role::inout) {
#if defined(SIMT_CHECKED)
        registered_ = std::make_unique<simt::Registered>(std::vector<simt::Tensor>{
            {name, memory_.data(), sizeof(T), shape_.sizes, shape_.strides, role}});
#endif
    }
    T* values() { return reinterpret_cast<T*>(memory_.values()); }
    T* data() { return reinterpret_cast<T*>(memory_.data()); }
    void check_result() {
#if defined(SIMT_CHECKED)
        registered_->check_results();
#endif
    }

   private:
    Shape shape_;
    Memory memory_;
#if defined(SIMT_CHECKED)
    std::unique_ptr<simt::Registered> registered_;
#endif
};

// Round-robin is the order of the least surprise: what it shows needs no luck.
inline int run(void (*launch)()) {
    try {
        launch();
#if defined(SIMT_DEVICE)
        simt::detail::throw_if_failed(cudaDeviceSynchronize(), "of the program");
#endif
    } catch (const simt::LaunchError& error) {
        return std::puts(error.what()), 1;
    }
    return std::puts("clean"), 0;
}
