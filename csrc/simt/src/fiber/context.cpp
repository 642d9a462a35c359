#include "fiber/context.h"

#include <cstdint>

// The switch ends in `ret`, not in a jump: threads wait at equal call depth, so the processor's
// return predictor stays right, which is worth a third of the time of a switch. The floating-point
// control words are not saved: kernels do not change them.
#if !defined(SIMT_USE_UCONTEXT)

#if defined(__x86_64__)
asm(R"(
.text
.p2align 4
.globl simt_switch_stack
.hidden simt_switch_stack
.type simt_switch_stack, @function
simt_switch_stack:
    .cfi_startproc
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .cfi_endproc
.size simt_switch_stack, . - simt_switch_stack

.globl simt_start_stack
.hidden simt_start_stack
.type simt_start_stack, @function
simt_start_stack:
    .cfi_startproc
    .cfi_undefined rip
    movq %rbx, %rdi
    call *%r12
    ud2
    .cfi_endproc
.size simt_start_stack, . - simt_start_stack
)");
#elif defined(__aarch64__)
asm(R"(
.text
.p2align 4
.globl simt_switch_stack
.hidden simt_switch_stack
.type simt_switch_stack, %function
simt_switch_stack:
    .cfi_startproc
    stp x29, x30, [sp, #-160]!
    stp x19, x20, [sp, #16]
    stp x21, x22, [sp, #32]
    stp x23, x24, [sp, #48]
    stp x25, x26, [sp, #64]
    stp x27, x28, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #16]
    ldp x21, x22, [sp, #32]
    ldp x23, x24, [sp, #48]
    ldp x25, x26, [sp, #64]
    ldp x27, x28, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    ldp x29, x30, [sp], #160
    ret
    .cfi_endproc
.size simt_switch_stack, . - simt_switch_stack

.globl simt_start_stack
.hidden simt_start_stack
.type simt_start_stack, %function
simt_start_stack:
    .cfi_startproc
    .cfi_undefined x30
    mov x0, x19
    blr x20
    brk #0
    .cfi_endproc
.size simt_start_stack, . - simt_start_stack
)");
#endif

extern "C" __attribute__((visibility("hidden"))) void simt_start_stack();

#endif

namespace simt {
namespace detail {
namespace {

// What ran on the stack before may have left without returning.
void forget_frames([[maybe_unused]] char* stack, [[maybe_unused]] std::size_t bytes) {
#if defined(SIMT_ASAN)
    ASAN_UNPOISON_MEMORY_REGION(stack, bytes);
#endif
}

}  // namespace

#if defined(SIMT_USE_UCONTEXT)

namespace {
using Entry = void (*)(void*);

// makecontext passes ints only, so the two pointers travel in halves.
void start_from_halves(unsigned entry_high, unsigned entry_low, unsigned argument_high,
                       unsigned argument_low) {
    const auto join = [](unsigned high, unsigned low) { return uint64_t(high) << 32 | low; };
    const auto entry = reinterpret_cast<Entry>(uintptr_t(join(entry_high, entry_low)));
    entry(reinterpret_cast<void*>(uintptr_t(join(argument_high, argument_low))));
}
}  // namespace

void Context::prepare(char* stack, std::size_t bytes, Entry entry, void* argument) {
    forget_frames(stack, bytes);
    getcontext(&registers_);
    registers_.uc_stack.ss_sp = stack;
    registers_.uc_stack.ss_size = bytes;
    registers_.uc_link = nullptr;
    const uint64_t e = reinterpret_cast<uintptr_t>(entry);
    const uint64_t a = reinterpret_cast<uintptr_t>(argument);
    makecontext(&registers_, reinterpret_cast<void (*)()>(start_from_halves), 4, unsigned(e >> 32),
                unsigned(e), unsigned(a >> 32), unsigned(a));
#else

// Builds the frame that simt_switch_stack pops: its `ret` enters simt_start_stack, which finds the
// entry and its argument in callee-saved registers.
void Context::prepare(char* stack, std::size_t bytes, void (*entry)(void*), void* argument) {
    forget_frames(stack, bytes);
    void** top = reinterpret_cast<void**>(uintptr_t(stack + bytes) & ~uintptr_t(15));
#if defined(__x86_64__)
    constexpr int kFrame = 7, kEntry = 3, kArgument = 4, kReturn = 6;  // r15 r14 r13 r12 rbx rbp pc
#else
    constexpr int kFrame = 20, kEntry = 3, kArgument = 2, kReturn = 1;  // x29 x30 x19 x20 ...
#endif
    void** frame = top - kFrame;
    for (int i = 0; i < kFrame; ++i) frame[i] = nullptr;
    frame[kEntry] = reinterpret_cast<void*>(entry);
    frame[kArgument] = argument;
    frame[kReturn] = reinterpret_cast<void*>(simt_start_stack);
    stack_pointer_ = frame;
#endif
    fake_stack_ = nullptr;
#if defined(SIMT_ASAN)
    stack_ = stack;
    bytes_ = bytes;
#endif
}

void Context::adopt_thread_stack() {
#if defined(SIMT_ASAN)
    pthread_attr_t attributes;
    void* stack = nullptr;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &stack, &bytes_);
    pthread_attr_destroy(&attributes);
    stack_ = stack;
#endif
}

}  // namespace detail
}  // namespace simt
