// How the executor runs kernels: order, seed, OS threads. Host face only.
#pragma once

#include <cstdint>

namespace simt {

// The order in which blocks, and the threads of a block that could run, are taken.
enum class Policy {
    RoundRobin,  // ascending, warp by warp
    Reverse,     // descending
    Random,      // drawn from the seed
    Priority,    // drawn priorities, of which a few change at drawn moments (docs/simt.md)
};

struct Schedule {
    Policy policy = Policy::RoundRobin;
    uint64_t seed = 0;  // what is drawn comes from it; same seed, same order, whatever `threads` is
    int threads = 1;    // OS threads that share the blocks of a launch; 0 = all cores
    int depth = 3;      // of Priority: one more than the moments at which a priority changes
    // The checked build only, and there with one OS thread: the share of memory accesses at which
    // another thread goes on instead, whatever the policy.
    double preemption = 0;
};

// Holds for launches that start later, from any OS thread. Throws std::invalid_argument for a depth
// below 1, a preemption outside [0, 1], or one above 0 in a build that is not checked.
void set_schedule(const Schedule& schedule);
Schedule schedule();

// Whether this build checks every access of a kernel.
bool is_checked();

// Totals since the process started. For one schedule they are reproducible.
struct Stats {
    uint64_t launches = 0;
    uint64_t blocks = 0;
    uint64_t threads = 0;
    uint64_t switches = 0;     // from one fiber to another
    uint64_t collectives = 0;  // completed, one for a whole mask
    uint64_t barriers = 0;     // completed, one for a whole block
    uint64_t accesses = 0;     // of shared and global memory, counted by the checked build alone
};

Stats stats();

}  // namespace simt
