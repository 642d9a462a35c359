// Copies from global to shared memory that finish later (cp.async, compute capability 8.0).
#pragma once

namespace simt {

// cp_async<16>(to, from) begins a copy of 4, 8 or 16 bytes, aligned to as many, by this thread; with
// copy = false zeros arrive and `from` is not read. Copies begun since the last cp_async_commit()
// become a group; cp_async_wait<n>() waits until at most n groups of this thread are under way. What
// arrived is there for this thread; for others it is after a barrier.

#if defined(SIMT_DEVICE)

template <int bytes>
__device__ __forceinline__ void cp_async(void* to, const void* from, bool copy = true) {
    static_assert(bytes == 4 || bytes == 8 || bytes == 16, "cp.async copies 4, 8 or 16 bytes");
    const unsigned shared = unsigned(__cvta_generic_to_shared(to));
    const int used = copy ? bytes : 0;
    if constexpr (bytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from),
                     "r"(used)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared), "l"(from),
                     "n"(bytes), "r"(used)
                     : "memory");
}
__device__ __forceinline__ void cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int groups>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}
__device__ __forceinline__ void cp_async_wait_all() {
    asm volatile("cp.async.wait_all;" ::: "memory");
}

#else

namespace detail {
void begin_copy(void* to, const void* from, int bytes, bool copy, Site site);
void commit_copies();
void wait_for_copies(int groups, Site site);
constexpr int kAllCopies = -1;  // those of no group as well
}  // namespace detail

template <int bytes>
inline void cp_async(void* to, const void* from, bool copy = true, SIMT_CALL_SITE) {
    static_assert(bytes == 4 || bytes == 8 || bytes == 16, "cp.async copies 4, 8 or 16 bytes");
    detail::begin_copy(to, from, bytes, copy, site);
}
inline void cp_async_commit() { detail::commit_copies(); }
template <int groups>
inline void cp_async_wait(SIMT_CALL_SITE) {
    static_assert(groups >= 0, "a number of groups");
    detail::wait_for_copies(groups, site);
}
inline void cp_async_wait_all(SIMT_CALL_SITE) { detail::wait_for_copies(detail::kAllCopies, site); }

#endif

}  // namespace simt
