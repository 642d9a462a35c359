// Atomics: relaxed, as on the device, and real, since blocks may run on several OS threads.
#pragma once

#include <cmath>
#include <type_traits>

#include "simt/half.h"
#include "simt/vocabulary.h"

namespace simt {
namespace detail {

template <class T, class... Allowed>
constexpr bool is_one_of = (std::is_same<T, Allowed>::value || ...);

// A parameter that takes no part in deduction: atomicAdd(&unsigned_counter, 1) means unsigned.
template <class T>
struct Same {
    using type = T;
};
template <class T>
using NotDeduced = typename Same<T>::type;

template <std::size_t bytes>
struct WordOf;
template <>
struct WordOf<2> {
    using type = uint16_t;
};
template <>
struct WordOf<4> {
    using type = uint32_t;
};
template <>
struct WordOf<8> {
    using type = uint64_t;
};

// *address = update(*address) in one step; returns the old value.
template <class T, class Update>
__forceinline__ T atomic_update(T* address, Scope scope, Site site, Update update) {
    note_atomic(address, sizeof(T), scope, site);
    using Word = typename WordOf<sizeof(T)>::type;
    Word* word = reinterpret_cast<Word*>(address);
    Word seen = __atomic_load_n(word, __ATOMIC_RELAXED);
    for (;;) {
        const T old = bit_cast<T>(seen);
        const Word wanted = bit_cast<Word>(update(old));
        if (__atomic_compare_exchange_n(word, &seen, wanted, /*weak=*/true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED))
            return old;
    }
}

}  // namespace detail
}  // namespace simt

// Each operation for the types CUDA has it for, and its block- and system-scoped forms.
#define SIMT_ATOMIC_SCOPE(name, scope, expression, ...)                       \
    template <class T>                                                        \
    T name(T* address, ::simt::detail::NotDeduced<T> value, SIMT_CALL_SITE) { \
        static_assert(::simt::detail::is_one_of<T, __VA_ARGS__>,              \
                      "CUDA has no " #name " for this type");                 \
        return ::simt::detail::atomic_update(                                 \
            address, ::simt::detail::Scope::scope, site,                      \
            [value]([[maybe_unused]] T old) -> T { return T(expression); });  \
    }
#define SIMT_ATOMIC(name, expression, ...)                          \
    SIMT_ATOMIC_SCOPE(name, device, expression, __VA_ARGS__)        \
    SIMT_ATOMIC_SCOPE(name##_block, block, expression, __VA_ARGS__) \
    SIMT_ATOMIC_SCOPE(name##_system, system, expression, __VA_ARGS__)

SIMT_ATOMIC(atomicAdd, old + value, int, unsigned, unsigned long long, float, double, __half,
            __nv_bfloat16)
SIMT_ATOMIC(atomicSub, old - value, int, unsigned)
SIMT_ATOMIC(atomicExch, value, int, unsigned, unsigned long long, float)
SIMT_ATOMIC(atomicMin, value < old ? value : old, int, unsigned, long long, unsigned long long)
SIMT_ATOMIC(atomicMax, value > old ? value : old, int, unsigned, long long, unsigned long long)
SIMT_ATOMIC(atomicAnd, old& value, int, unsigned, unsigned long long)
SIMT_ATOMIC(atomicOr, old | value, int, unsigned, unsigned long long)
SIMT_ATOMIC(atomicXor, old ^ value, int, unsigned, unsigned long long)
SIMT_ATOMIC(atomicInc, old >= value ? 0u : old + 1u, unsigned)
SIMT_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1u, unsigned)

#undef SIMT_ATOMIC
#undef SIMT_ATOMIC_SCOPE

#define SIMT_ATOMIC_CAS(name, scope)                                                           \
    template <class T>                                                                         \
    T name(T* address, ::simt::detail::NotDeduced<T> compare, ::simt::detail::NotDeduced<T> v, \
           SIMT_CALL_SITE) {                                                                   \
        static_assert(                                                                         \
            ::simt::detail::is_one_of<T, int, unsigned, unsigned long long, unsigned short>,   \
            "CUDA has no atomicCAS for this type");                                            \
        return ::simt::detail::atomic_update(                                                  \
            address, ::simt::detail::Scope::scope, site,                                       \
            [compare, v](T old) -> T { return old == compare ? v : old; });                    \
    }
SIMT_ATOMIC_CAS(atomicCAS, device)
SIMT_ATOMIC_CAS(atomicCAS_block, block)
SIMT_ATOMIC_CAS(atomicCAS_system, system)
#undef SIMT_ATOMIC_CAS
