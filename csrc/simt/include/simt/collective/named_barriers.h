// Barriers of some of a block's threads: the sixteen numbered ones, and mbarriers, which live in
// shared memory (compute capability 8.0).
#pragma once

namespace simt {

// named_barrier_sync(id, threads): waits until `threads` threads, a multiple of 32, have come to
// barrier `id`; whole warps come. Number 0 is the one of __syncthreads. named_barrier_arrive comes and
// does not wait.
//
// mbarrier_init(barrier, count) by one thread, then a block barrier. A phase of it completes with
// `count` arrivals. mbarrier_wait(barrier, parity) waits until the phase of that parity (0 for the
// first) has completed; mbarrier_test asks. Arriving releases, waiting acquires.

#if defined(SIMT_DEVICE)

__device__ __forceinline__ void named_barrier_sync(int id, int threads) {
    asm volatile("barrier.cta.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
    asm volatile("barrier.cta.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ void mbarrier_init(uint64_t* barrier, int count) {
    const unsigned shared = unsigned(__cvta_generic_to_shared(barrier));
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared), "r"(count) : "memory");
}
__device__ __forceinline__ void mbarrier_arrive(uint64_t* barrier) {
    const unsigned shared = unsigned(__cvta_generic_to_shared(barrier));
    asm volatile("{\n .reg .b64 state;\n mbarrier.arrive.shared.b64 state, [%0];\n}" ::"r"(shared)
                 : "memory");
}
__device__ __forceinline__ bool mbarrier_test(uint64_t* barrier, int parity) {
    const unsigned shared = unsigned(__cvta_generic_to_shared(barrier));
    int complete;
    asm volatile(
        "{\n .reg .pred p;\n mbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n"
        " selp.s32 %0, 1, 0, p;\n}"
        : "=r"(complete)
        : "r"(shared), "r"(parity)
        : "memory");
    return complete != 0;
}
__device__ __forceinline__ void mbarrier_wait(uint64_t* barrier, int parity) {
    while (!mbarrier_test(barrier, parity)) {
    }
}

#else

namespace detail {
void named_barrier(int id, int threads, bool wait, Site site);
void init_mbarrier(uint64_t* barrier, int count, Site site);
void arrive_at_mbarrier(uint64_t* barrier, Site site);
bool test_mbarrier(uint64_t* barrier, int parity, bool wait, Site site);
}  // namespace detail

inline void named_barrier_sync(int id, int threads, SIMT_CALL_SITE) {
    detail::named_barrier(id, threads, true, site);
}
inline void named_barrier_arrive(int id, int threads, SIMT_CALL_SITE) {
    detail::named_barrier(id, threads, false, site);
}

inline void mbarrier_init(uint64_t* barrier, int count, SIMT_CALL_SITE) {
    detail::init_mbarrier(barrier, count, site);
}
inline void mbarrier_arrive(uint64_t* barrier, SIMT_CALL_SITE) {
    detail::arrive_at_mbarrier(barrier, site);
}
inline bool mbarrier_test(uint64_t* barrier, int parity, SIMT_CALL_SITE) {
    return detail::test_mbarrier(barrier, parity, false, site);
}
inline void mbarrier_wait(uint64_t* barrier, int parity, SIMT_CALL_SITE) {
    detail::test_mbarrier(barrier, parity, true, site);
}

#endif

}  // namespace simt
