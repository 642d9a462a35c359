// What the headers ask of the executor (csrc/simt/src). Kernels never call these by name.
// Included by vocabulary.h, after the types that it uses.
#pragma once

#include <cstddef>
#include <cstdint>

namespace simt {
namespace detail {

// A source line. As a default argument, Site::here() names the line of the call.
struct Site {
    const char* file;
    int line;

    static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
        return {file, line};
    }
};

#define SIMT_CALL_SITE ::simt::detail::Site site = ::simt::detail::Site::here()

// What a running thread may see of itself and of its block.
struct BlockView {
    uint3 block_index;
    dim3 block_dim;
    dim3 grid_dim;
};
struct ThreadView {
    uint3 thread_index;
    unsigned lane;  // 0..31
    const BlockView* block;
};

// The CUDA thread that runs on this OS thread. One pointer of initial-exec TLS: an access is two
// loads, and a Python module takes only these 8 bytes of the static TLS that dlopen has to spare.
extern __thread const ThreadView* current __attribute__((tls_model("initial-exec")));

#if defined(SIMT_CHECKED)
// Functions, because an instrumented kernel would ask leave for every load from a ThreadView; `const`,
// because a thread never sees them change.
uint3 thread_index() __attribute__((const));
uint3 block_index() __attribute__((const));
dim3 block_dim() __attribute__((const));
dim3 grid_dim() __attribute__((const));
unsigned lane_id() __attribute__((const));
#else
inline unsigned lane_id() { return current->lane; }
#endif

// ---- Warp collectives ---------------------------------------------------------------------------

// What the lanes of a mask brought to a collective, and what each of them takes away.
struct Exchange {
    uint64_t value[32];     // operand of the lane: a number, or a pointer to something larger
    uint32_t argument[32];  // second operand: the source lane of a shuffle
    uint64_t result[32];
};

// A kind of collective. The last lane to arrive calls `complete` once, on behalf of all of `mask`;
// it fills result[i] for each lane i of the mask. The address is the identity: two lanes of one mask
// must bring the same one.
struct Collective {
    const char* name;  // as the kernel writes it: "__shfl_sync"
    void (*complete)(Exchange& exchange, uint32_t mask);
    bool orders_memory;  // what a lane did before is seen by the others after: __syncwarp alone
};

// Waits until all lanes of `mask` arrived at the same collective on the same line.
uint64_t collective(const Collective& kind, uint32_t mask, uint64_t value, uint32_t argument,
                    Site site);

// A collective whose argument is the lane, inside the mask, that the value is to come from.
uint64_t shuffle(const Collective& kind, uint32_t mask, uint64_t value, uint32_t source, Site site);

// Lets another thread of the block run. Threads that do nothing but ask for it are a deadlock.
void yield(Site site);

// ---- Atomics and fences -------------------------------------------------------------------------

// Who takes part in an atomic operation, or sees what came before a fence.
enum class Scope : uint8_t { block, device, system };

// An access that the executor makes on a thread's behalf: to any memory, to shared memory only, and
// as an asynchronous copy to shared memory. An address that is not aligned to `bytes` stops the
// block in every build.
#if defined(SIMT_CHECKED)
void note_access(const void* address, std::size_t bytes, bool write, Site site);
void note_shared_access(const void* address, std::size_t bytes, bool write, Site site);
void note_copy(void* to, std::size_t bytes, Site site);
// A load through the cache for constant data, before the load itself.
void note_constant_load(const void* address, std::size_t bytes, Site site);
#else
[[noreturn]] void fail_misaligned(const void* address, std::size_t bytes, Site site);
inline void note_access(const void* address, std::size_t bytes, bool, Site site) {
    if (reinterpret_cast<uintptr_t>(address) % bytes != 0) fail_misaligned(address, bytes, site);
}
inline void note_shared_access(const void* address, std::size_t bytes, bool write, Site site) {
    note_access(address, bytes, write, site);
}
inline void note_copy(void* to, std::size_t bytes, Site site) {
    note_access(to, bytes, true, site);
}
inline void note_constant_load(const void*, std::size_t, Site) {}
#endif

#if defined(SIMT_CHECKED)
void note_atomic(const void* address, std::size_t bytes, Scope scope, Site site);
void fence(Scope scope);
#else
inline void note_atomic(const void*, std::size_t, Scope, Site) {}
// The threads of a block share one OS thread, so only other blocks need a real fence.
inline void fence(Scope scope) {
    if (scope == Scope::block)
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
    else
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
#endif

// What the launch before did comes before what this thread does from now on.
#if defined(SIMT_CHECKED)
void note_wait_for_launch();
#else
inline void note_wait_for_launch() {}
#endif

// ---- Block barriers -----------------------------------------------------------------------------

// Waits for the whole block; returns how many threads brought a true predicate.
int block_barrier(const char* name, bool predicate, Site site);

// ---- Shared memory ------------------------------------------------------------------------------

// One SIMT_SHARED declaration: its address is the identity of the array.
struct SharedArray {
    const char* name;
    std::size_t bytes;
    std::size_t element_bytes;
    std::size_t alignment;
    Site site;
};

void* shared_array(const SharedArray& array);
void* dynamic_shared_bytes(std::size_t offset, std::size_t alignment, Site site);

// ---- Faults and launches ------------------------------------------------------------------------

// Stops the block: the launch throws LaunchError(kind, "... <text> at file:line. <advice>").
[[noreturn]] void fail(const char* kind, const char* text, const char* advice, Site site);

struct LaunchRequest {
    const char* name;  // the kernel as written in SIMT_LAUNCH
    Site site;
    dim3 grid;
    dim3 block;
    std::size_t dynamic_shared;
    void (*invoke)(void* arguments);  // runs the kernel body for the current thread
    void* arguments;
    std::size_t argument_bytes;
    bool early;  // SIMT_LAUNCH_AFTER: it may start before the launch before has ended
};

void launch(const LaunchRequest& request);

}  // namespace detail
}  // namespace simt
