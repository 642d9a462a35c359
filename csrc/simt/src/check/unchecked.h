// The face of Checker in a build that checks no accesses.
#pragma once

#include "block/fault.h"
#include "block/shared_arena.h"
#include "fiber/stack_slab.h"
#include "simt/schedule.h"
#include "simt/vocabulary.h"

namespace simt {
namespace detail {

class BlockRunner;

class OutsideKernel {
   public:
    OutsideKernel() {}
    ~OutsideKernel() {}
};

class Order {
   public:
    void block_barrier() {}
    void warp_barrier(int, uint32_t) {}
    void arrive(uintptr_t) {}
    void complete(uintptr_t) {}
    void pass(uintptr_t) {}
};

class Checker {
   public:
    explicit Checker(BlockRunner&) {}
    void begin_launch(const LaunchRequest&, const Schedule&) {}
    void begin_block(uint3, int, const SharedArena&) {}
    void enter(unsigned, const Stack&) {}
    void begin_kernel_code() {}
    void end_kernel_code() {}
    void shared_array(const SharedArray&, void*) {}
    void copy_ends(void*, std::size_t, Site) {}
    Order& order() { return order_; }
    uint64_t take_accesses() { return 0; }
    bool found_any() const { return false; }
    Fault report() const { return {}; }

   private:
    Order order_;
};

}  // namespace detail
}  // namespace simt
