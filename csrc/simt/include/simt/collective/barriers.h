// Barriers and fences.
#pragma once

#include "simt/vocabulary.h"

inline void __syncthreads(SIMT_CALL_SITE) {
    ::simt::detail::block_barrier("__syncthreads", false, site);
}
inline int __syncthreads_count(int predicate, SIMT_CALL_SITE) {
    return ::simt::detail::block_barrier("__syncthreads_count", predicate != 0, site);
}
inline int __syncthreads_or(int predicate, SIMT_CALL_SITE) {
    return ::simt::detail::block_barrier("__syncthreads_or", predicate != 0, site) != 0;
}
inline int __syncthreads_and(int predicate, SIMT_CALL_SITE) {
    return ::simt::detail::block_barrier("__syncthreads_and", predicate == 0, site) == 0;
}

namespace simt {
namespace detail {
extern const Collective kSyncWarp;
}
}  // namespace simt

inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_CALL_SITE) {
    ::simt::detail::collective(::simt::detail::kSyncWarp, mask, 0, 0, site);
}

inline void __threadfence_block() { ::simt::detail::fence(::simt::detail::Scope::block); }
inline void __threadfence() { ::simt::detail::fence(::simt::detail::Scope::device); }
inline void __threadfence_system() { ::simt::detail::fence(::simt::detail::Scope::system); }

inline void __nanosleep(unsigned, SIMT_CALL_SITE) { ::simt::detail::yield(site); }

inline void __trap(SIMT_CALL_SITE) {
    ::simt::detail::fail("trap", "__trap()", "The kernel stopped itself.", site);
}
