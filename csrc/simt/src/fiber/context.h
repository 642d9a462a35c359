// Saved execution contexts and the switch between them.
//
// On x86-64 and aarch64 the switch is a dozen instructions of assembly (context.cpp); elsewhere, or
// with SIMT_PORTABLE_FIBERS, it is ucontext, about 30 times slower and otherwise the same.
#pragma once

#include <cstddef>

#if defined(SIMT_PORTABLE_FIBERS) || !(defined(__x86_64__) || defined(__aarch64__))
#define SIMT_USE_UCONTEXT 1
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif
#if defined(SIMT_ASAN)
#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {
namespace detail {

#if !defined(SIMT_USE_UCONTEXT)
// Pushes the callee-saved registers, stores the stack pointer to *save, continues at `resume`.
extern "C" __attribute__((visibility("hidden"))) void simt_switch_stack(void** save, void* resume);
#endif

class Context {
   public:
    // The next switch to this context calls entry(argument) on the given stack. It must not return.
    void prepare(char* stack, std::size_t bytes, void (*entry)(void*), void* argument);

    // For the context of an OS thread: tells AddressSanitizer which stack that is.
    void adopt_thread_stack();

    // Stops here, to go on when someone switches back to *this.
    void switch_to(Context& next) {
        announce(&fake_stack_, next);
        raw_switch(next);
        arrived();
    }

    // Stops here for good.
    [[noreturn]] void leave_to(Context& next) {
        announce(nullptr, next);
        raw_switch(next);
        __builtin_unreachable();
    }

    // To be called first thing on a new stack.
    void arrived() {
#if defined(SIMT_ASAN)
        __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
#endif
    }

   private:
    void raw_switch(Context& next) {
#if defined(SIMT_USE_UCONTEXT)
        swapcontext(&registers_, &next.registers_);
#else
        simt_switch_stack(&stack_pointer_, next.stack_pointer_);
#endif
    }

    static void announce([[maybe_unused]] void** fake_stack, [[maybe_unused]] Context& next) {
#if defined(SIMT_ASAN)
        __sanitizer_start_switch_fiber(fake_stack, next.stack_, next.bytes_);
#endif
    }

#if defined(SIMT_USE_UCONTEXT)
    ucontext_t registers_;
#else
    void* stack_pointer_ = nullptr;
#endif
    void* fake_stack_ = nullptr;
#if defined(SIMT_ASAN)
    const void* stack_ = nullptr;
    std::size_t bytes_ = 0;
#endif
};

}  // namespace detail
}  // namespace simt
