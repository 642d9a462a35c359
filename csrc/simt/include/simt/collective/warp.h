// Warp shuffles, votes, match and reduce: each call is one collective.
#pragma once

#include <type_traits>

#include "simt/half.h"
#include "simt/vocabulary.h"

namespace simt {
namespace detail {

extern const Collective kShfl, kShflUp, kShflDown, kShflXor, kBallot, kAny, kAll, kMatchAny,
    kMatchAll, kReduceAddSigned, kReduceMinSigned, kReduceMaxSigned, kReduceAdd, kReduceMin,
    kReduceMax, kReduceAnd, kReduceOr, kReduceXor;

// The type a shuffle returns: CUDA's overloads promote short and char to int.
template <class T, bool = std::is_arithmetic<T>::value>
struct ShuffleType {
    using type = decltype(+T());
};
template <class T>
struct ShuffleType<T, false> {
    using type = T;
};

template <class T>
constexpr bool is_shuffle_type =
    std::is_arithmetic<T>::value || std::is_same<T, __half>::value ||
    std::is_same<T, __half2>::value || std::is_same<T, __nv_bfloat16>::value ||
    std::is_same<T, __nv_bfloat162>::value;

template <class T>
uint64_t to_bits(T value) {
    static_assert(sizeof(T) <= 8, "CUDA shuffles at most 64 bits");
    uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    return bits;
}
template <class T>
T from_bits(uint64_t bits) {
    T value;
    __builtin_memcpy(&value, &bits, sizeof(T));
    return value;
}

inline unsigned checked_width(int width, Site site) {
    const bool power_of_two = width >= 1 && width <= 32 && (width & (width - 1)) == 0;
    if (!power_of_two)
        fail("bad width", "shuffle width is not 1, 2, 4, 8, 16 or 32", "Pass one of these.", site);
    return unsigned(width);
}

template <class T>
typename ShuffleType<T>::type shuffle_value(const Collective& kind, unsigned mask, T value,
                                            unsigned source, Site site) {
    static_assert(is_shuffle_type<T>, "CUDA has no shuffle for this type");
    using R = typename ShuffleType<T>::type;
    return from_bits<R>(shuffle(kind, mask, to_bits(R(value)), source, site));
}

}  // namespace detail
}  // namespace simt

// ---- Shuffles. A source outside the segment gives the lane its own value, as on the device. -----

template <class T>
auto __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_CALL_SITE) {
    const unsigned w = ::simt::detail::checked_width(width, site);
    const unsigned first = ::simt::detail::lane_id() & ~(w - 1);
    return ::simt::detail::shuffle_value(::simt::detail::kShfl, mask, value,
                                         first + (unsigned(source) & (w - 1)), site);
}
template <class T>
auto __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_CALL_SITE) {
    const unsigned w = ::simt::detail::checked_width(width, site);
    const unsigned lane = ::simt::detail::lane_id();
    const bool inside = (lane & (w - 1)) >= (delta & 31);
    return ::simt::detail::shuffle_value(::simt::detail::kShflUp, mask, value,
                                         inside ? lane - (delta & 31) : lane, site);
}
template <class T>
auto __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_CALL_SITE) {
    const unsigned w = ::simt::detail::checked_width(width, site);
    const unsigned lane = ::simt::detail::lane_id();
    const bool inside = (lane & (w - 1)) + (delta & 31) < w;
    return ::simt::detail::shuffle_value(::simt::detail::kShflDown, mask, value,
                                         inside ? lane + (delta & 31) : lane, site);
}
// A xor may reach back into an earlier segment, but not forward into a later one.
template <class T>
auto __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, SIMT_CALL_SITE) {
    const unsigned w = ::simt::detail::checked_width(width, site);
    const unsigned lane = ::simt::detail::lane_id();
    const unsigned source = lane ^ (unsigned(lane_mask) & 31);
    return ::simt::detail::shuffle_value(::simt::detail::kShflXor, mask, value,
                                         source <= (lane | (w - 1)) ? source : lane, site);
}

// ---- Votes --------------------------------------------------------------------------------------

inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_CALL_SITE) {
    using namespace simt::detail;
    return unsigned(collective(kBallot, mask, predicate != 0, 0, site));
}
inline int __any_sync(unsigned mask, int predicate, SIMT_CALL_SITE) {
    using namespace simt::detail;
    return int(collective(kAny, mask, predicate != 0, 0, site));
}
inline int __all_sync(unsigned mask, int predicate, SIMT_CALL_SITE) {
    using namespace simt::detail;
    return int(collective(kAll, mask, predicate != 0, 0, site));
}

// CUDA promises nothing about which lanes are converged, so a lone lane is a right answer, and the
// one that finds code that takes more for granted.
inline unsigned __activemask() { return 1u << ::simt::detail::lane_id(); }

// ---- Match and reduce ---------------------------------------------------------------------------

template <class T>
unsigned __match_any_sync(unsigned mask, T value, SIMT_CALL_SITE) {
    static_assert(std::is_arithmetic<T>::value && sizeof(T) >= 4,
                  "CUDA has no match for this type");
    using namespace simt::detail;
    return unsigned(collective(kMatchAny, mask, to_bits(value), 0, site));
}
template <class T>
unsigned __match_all_sync(unsigned mask, T value, int* predicate, SIMT_CALL_SITE) {
    static_assert(std::is_arithmetic<T>::value && sizeof(T) >= 4,
                  "CUDA has no match for this type");
    using namespace simt::detail;
    const unsigned matched = unsigned(collective(kMatchAll, mask, to_bits(value), 0, site));
    *predicate = matched != 0;
    return matched;
}

#define SIMT_REDUCE(name, T, kind)                                                             \
    inline T name(unsigned mask, T value, SIMT_CALL_SITE) {                                    \
        return T(                                                                              \
            ::simt::detail::collective(::simt::detail::kind, mask, uint64_t(value), 0, site)); \
    }
SIMT_REDUCE(__reduce_add_sync, int, kReduceAddSigned)
SIMT_REDUCE(__reduce_min_sync, int, kReduceMinSigned)
SIMT_REDUCE(__reduce_max_sync, int, kReduceMaxSigned)
SIMT_REDUCE(__reduce_add_sync, unsigned, kReduceAdd)
SIMT_REDUCE(__reduce_min_sync, unsigned, kReduceMin)
SIMT_REDUCE(__reduce_max_sync, unsigned, kReduceMax)
SIMT_REDUCE(__reduce_and_sync, unsigned, kReduceAnd)
SIMT_REDUCE(__reduce_or_sync, unsigned, kReduceOr)
SIMT_REDUCE(__reduce_xor_sync, unsigned, kReduceXor)
#undef SIMT_REDUCE
