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
};

// Waits until all lanes of `mask` arrived at the same collective on the same line.
uint64_t collective(const Collective& kind, uint32_t mask, uint64_t value, uint32_t argument,
                    Site site);

// A collective whose argument is the lane, inside the mask, that the value is to come from.
uint64_t shuffle(const Collective& kind, uint32_t mask, uint64_t value, uint32_t source, Site site);

// Lets another thread of the block run.
void yield();

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
};

void launch(const LaunchRequest& request);

}  // namespace detail
}  // namespace simt
