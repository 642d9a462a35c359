// How the executor runs kernels: order, seed, OS threads. Host face only.
#pragma once

#include <cstdint>

namespace simt {

// The order in which blocks, and the threads of a block that could run, are taken.
enum class Policy {
    RoundRobin,  // ascending, warp by warp
    Reverse,     // descending
    Random,      // drawn from the seed
};

struct Schedule {
    Policy policy = Policy::RoundRobin;
    uint64_t seed = 0;  // only Random uses it; same seed, same order, whatever `threads` is
    int threads = 1;    // OS threads that share the blocks of a launch; 0 = all cores
};

// Holds for launches that start later, from any OS thread.
void set_schedule(const Schedule& schedule);
Schedule schedule();

// Totals since the process started. For one schedule they are reproducible.
struct Stats {
    uint64_t launches = 0;
    uint64_t blocks = 0;
    uint64_t threads = 0;
    uint64_t switches = 0;     // from one fiber to another
    uint64_t collectives = 0;  // completed, one for a whole mask
    uint64_t barriers = 0;     // completed, one for a whole block
};

Stats stats();

}  // namespace simt
