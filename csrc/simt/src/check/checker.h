// The checked build: sees every access of a kernel, and judges it.
//
// Kernels are compiled with -fsanitize=thread and linked to the hooks of hooks.cpp, which end in
// Checker::access. The unchecked build has an empty class of the same face (unchecked.h), so
// BlockRunner calls either.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "block/shared_arena.h"
#include "check/access.h"
#include "check/findings.h"
#include "check/memory.h"
#include "check/module.h"
#include "check/order.h"
#include "fiber/stack_slab.h"
#include "simt/schedule.h"
#include "simt/vocabulary.h"

namespace simt {
namespace detail {

class BlockRunner;
class Checker;

// The checker of the kernel that runs on this OS thread; nullptr outside kernels and in the executor.
extern __thread Checker* checking __attribute__((tls_model("initial-exec")));

// While one lives, hooks look away: the executor's own accesses are none of the kernel's.
class OutsideKernel {
   public:
    OutsideKernel() : checker_(checking) { checking = nullptr; }
    ~OutsideKernel() { checking = checker_; }
    OutsideKernel(const OutsideKernel&) = delete;
    OutsideKernel& operator=(const OutsideKernel&) = delete;

   private:
    Checker* checker_;
};

class Checker {
   public:
    explicit Checker(BlockRunner& runner) : runner_(runner) {}

    // ---- What BlockRunner tells ----
    void begin_launch(const LaunchRequest& request, const Schedule& schedule);
    void begin_block(uint3 block, int threads, const SharedArena& arena);
    void enter(unsigned thread, const Stack& stack) {
        stack_low_ = reinterpret_cast<uintptr_t>(stack.bottom);
        stack_bytes_ = stack.bytes;
        order_.enter(thread);
        polls_ = 0;
        volatile_read_ = 0;
    }
    void begin_kernel_code() { checking = this; }
    void end_kernel_code() { checking = nullptr; }
    void shared_array(const SharedArray& array, void* place);
    void wait_for_launch();
    Order& order() { return order_; }
    uint64_t take_accesses() {
        const uint64_t taken = accesses_;
        accesses_ = 0;
        return taken;
    }
    bool found_any() const { return !findings_.empty(); }
    Fault report() const;

    // ---- What the hooks ask ----
    void access(uintptr_t address, std::size_t bytes, uint32_t flags, Where where) {
        if (address - stack_low_ < stack_bytes_) return;
        look(address, bytes, flags, where);
    }
    void atomic(uintptr_t address, std::size_t bytes, Scope scope, Where where);
    void volatile_access(uintptr_t address, std::size_t bytes, uint32_t flags, Where where);
    [[noreturn]] void stop_misaligned(uintptr_t address, std::size_t bytes, Where where,
                                      bool write);
    void undefined(const std::string& what, Where where);
    [[noreturn]] void stop_undefined(const std::string& what, Where where);
    // The destination of an asynchronous copy, when it begins and when it was waited for.
    void copy_begins(uintptr_t to, std::size_t bytes, Where where);
    void copy_ends(void* to, std::size_t bytes, Site site);
    // A load through the cache for constant data.
    void constant_load(uintptr_t address, std::size_t bytes, Site site);
    // Stops the block if `address` is not aligned, or not in shared memory where it must be.
    void require(uintptr_t address, std::size_t bytes, bool write, bool shared, Where where);

   private:
    // A shared array, or a variable of the module.
    struct Named : Granules {
        const void* key = nullptr;
        std::string name;
        std::size_t element_bytes = 1;
    };
    struct Block {
        uint3 index;
        dim3 shape;
    };
    // Accesses from that stamp on are compared with one that the current thread makes now.
    uint64_t unordered_since() const;
    void count_poll(Where where);
    void look(uintptr_t address, std::size_t bytes, uint32_t flags, Where where);
    void look_shared(uintptr_t address, std::size_t bytes, uint32_t flags, Where where);
    void look_global(uintptr_t address, std::size_t bytes, uint32_t flags, Where where);
    void look_elsewhere(uintptr_t address, std::size_t bytes, uint32_t flags, Where where);
    bool look_module(uintptr_t address, std::size_t bytes, uint32_t flags, Where where);
    void look_overlapping(Span& span, uintptr_t address, std::size_t bytes, uint32_t flags,
                          Where where);
    // Compares with what the cells remember and remembers this access. `since`: older stamps are not
    // of this memory's life as far as races go; `fresh_since`: as far as values go.
    void touch(Granules& granules, uintptr_t address, std::size_t bytes, uint32_t flags,
               Where where, uint64_t since, uint64_t fresh_since);
    void touch_cells(Cell* first, Cell* last, uint32_t flags, const Access& now, uint64_t since,
                     uint64_t fresh_since, uintptr_t address, std::size_t bytes);
    void touch_cell(Cell& cell, uint32_t flags, const Access& now, uint64_t since,
                    uint64_t fresh_since, uintptr_t address, std::size_t bytes);
    bool conflicts(const Access& past, uint32_t flags, uint64_t since) const;
    void remember(Cell& cell, const Access& now, uint64_t since);

    Named* find_shared(uintptr_t address);
    template <class Function>
    void for_cells(uintptr_t address, std::size_t bytes, Function function);
    Side side(uint32_t flags, Where where) const;
    Side side(const Access& past) const;
    std::string object(uintptr_t address, std::size_t bytes) const;
    std::string named(const Named& variable, const char* what, uintptr_t address) const;
    void check_update(uintptr_t address, std::size_t bytes, Where where);
    const Cell* find_cell(uintptr_t address);
    void report_race(const Access& past, const Access& now, uintptr_t address, std::size_t bytes);
    void report(const char* kind, uintptr_t address, std::size_t bytes, uint32_t flags, Where where,
                const char* remark);
    // The access would hurt this process, so its thread goes no further.
    [[noreturn]] void stop_out_of_bounds(uintptr_t address, std::size_t bytes, uint32_t flags,
                                         Where where);
    [[noreturn]] void stop(const char* kind, std::size_t bytes, uint32_t flags, Where where,
                           const std::string& object, const char* remark);

    BlockRunner& runner_;
    uintptr_t stack_low_ = 0;
    std::size_t stack_bytes_ = 0;
    uintptr_t arguments_low_ = 0;
    std::size_t argument_bytes_ = 0;
    uintptr_t arena_low_ = 0;
    std::size_t arena_bytes_ = 0;
    uint64_t accesses_ = 0;
    bool armed_ = false;  // an access may be a scheduling point
    // The last volatile read since another thread ran.
    uintptr_t volatile_read_ = 0;
    Where volatile_read_where_ = 0;
    unsigned polls_ = 0;  // atomic and volatile accesses since another thread ran
    Order order_;
    Memory* memory_ = nullptr;

    const LaunchRequest* request_ = nullptr;
    std::string schedule_;
    uint64_t launch_since_ = 0;  // stamp of the launch's first block
    // Launches that each may start before the one before has ended: the first one's first block.
    uint64_t chain_since_ = 0;
    std::vector<bool> waited_;   // by thread of the block: for the launch before
    uint64_t waited_since_ = 0;  // when the first of the block did
    uint64_t block_since_ = 0;
    uint32_t first_serial_ = 0;
    std::vector<Block> blocks_;  // by serial, from the first of the chain of launches
    std::vector<Named> shared_;
    std::size_t last_shared_ = 0;
    CellPool shared_pool_;
    std::unordered_map<const void*, unsigned> shifts_;  // of shared arrays, in the blocks before
    std::unordered_map<const Variable*, Named> globals_;
    Findings findings_;
};

// A volatile access orders like a relaxed atomic of system scope.
void volatile_access(const volatile void* address, std::size_t bytes, uint32_t flags,
                     const void* caller);

// The tensors of all Registered that live on this OS thread.
Memory& registered_memory();
// Number of the last block that ran in this process.
extern std::atomic<uint32_t> last_serial;

}  // namespace detail
}  // namespace simt
