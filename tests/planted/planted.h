// What the programs with planted bugs share: registered tensors, and a main that prints the finding.
#pragma once

#include <cstdio>
#include <memory>
#include <vector>

#include "simt/memory.h"
#include "simt/simt.h"

template <class T>
class Tensor {
   public:
    explicit Tensor(const char* name, std::vector<int64_t> shape, std::vector<int64_t> strides = {},
                    simt::Role role = simt::Role::inout) {
        if (strides.empty()) {
            strides.resize(shape.size());
            int64_t step = 1;
            for (std::size_t i = shape.size(); i-- > 0; step *= shape[i]) strides[i] = step;
        }
        int64_t last = 0;
        for (std::size_t i = 0; i < shape.size(); ++i) last += (shape[i] - 1) * strides[i];
        // Aligned as an allocator of GPU memory would.
        memory_.reset(new (std::align_val_t(256)) char[std::size_t(last + 1) * sizeof(T)]());
        registered_ = std::make_unique<simt::Registered>(
            std::vector<simt::Tensor>{{name, memory_.get(), sizeof(T), shape, strides, role}});
    }
    T* data() { return reinterpret_cast<T*>(memory_.get()); }
    void check_result() { registered_->check_results(); }

   private:
    struct Free {
        void operator()(char* memory) const { operator delete[](memory, std::align_val_t(256)); }
    };
    std::unique_ptr<char[], Free> memory_;
    std::unique_ptr<simt::Registered> registered_;
};

// Round-robin is the order of the least surprise: what it shows needs no luck.
inline int run(void (*launch)()) {
    try {
        launch();
    } catch (const simt::LaunchError& error) {
        return std::puts(error.what()), 1;
    }
    return std::puts("clean"), 0;
}
