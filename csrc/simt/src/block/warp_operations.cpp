// What each warp collective computes, once all lanes of the mask have arrived.
#include "simt/collective/barriers.h"
#include "simt/collective/warp.h"

namespace simt {
namespace detail {
namespace {

template <class Function>
void for_each_lane(uint32_t mask, Function function) {
    for (; mask; mask &= mask - 1) function(__builtin_ctz(mask));
}

void give_all(Exchange& exchange, uint32_t mask, uint64_t result) {
    for_each_lane(mask, [&](int lane) { exchange.result[lane] = result; });
}

void sync(Exchange&, uint32_t) {}

// The source lies in the mask: BlockRunner::shuffle saw to that.
void shuffle(Exchange& exchange, uint32_t mask) {
    if (mask == ~uint32_t(0)) {
        for (int lane = 0; lane < 32; ++lane)
            exchange.result[lane] = exchange.value[exchange.argument[lane]];
    } else {
        for_each_lane(mask, [&](int lane) {
            exchange.result[lane] = exchange.value[exchange.argument[lane]];
        });
    }
}

uint32_t true_lanes(const Exchange& exchange, uint32_t mask) {
    uint32_t lanes = 0;
    for_each_lane(mask, [&](int lane) { lanes |= uint32_t(exchange.value[lane] != 0) << lane; });
    return lanes;
}
void ballot(Exchange& exchange, uint32_t mask) {
    give_all(exchange, mask, true_lanes(exchange, mask));
}
void any(Exchange& exchange, uint32_t mask) {
    give_all(exchange, mask, true_lanes(exchange, mask) != 0);
}
void all(Exchange& exchange, uint32_t mask) {
    give_all(exchange, mask, true_lanes(exchange, mask) == mask);
}

uint32_t equal_lanes(const Exchange& exchange, uint32_t mask, uint64_t value) {
    uint32_t lanes = 0;
    for_each_lane(mask,
                  [&](int lane) { lanes |= uint32_t(exchange.value[lane] == value) << lane; });
    return lanes;
}
void match_any(Exchange& exchange, uint32_t mask) {
    for_each_lane(mask, [&](int lane) {
        exchange.result[lane] = equal_lanes(exchange, mask, exchange.value[lane]);
    });
}
void match_all(Exchange& exchange, uint32_t mask) {
    const uint64_t first = exchange.value[__builtin_ctz(mask)];
    give_all(exchange, mask, equal_lanes(exchange, mask, first) == mask ? mask : 0);
}

template <class T, class Combine>
void reduce(Exchange& exchange, uint32_t mask, Combine combine) {
    T total = T(exchange.value[__builtin_ctz(mask)]);
    for_each_lane(mask & (mask - 1),
                  [&](int lane) { total = combine(total, T(exchange.value[lane])); });
    give_all(exchange, mask, uint64_t(total));
}

#define SIMT_REDUCTION(name, T, expression)                                  \
    void name(Exchange& exchange, uint32_t mask) {                           \
        reduce<T>(exchange, mask, [](T a, T b) -> T { return expression; }); \
    }
// A signed sum wraps on the device, so it is computed in unsigned.
SIMT_REDUCTION(add, uint32_t, a + b)
SIMT_REDUCTION(min_signed, int32_t, a < b ? a : b)
SIMT_REDUCTION(max_signed, int32_t, a > b ? a : b)
SIMT_REDUCTION(min_unsigned, uint32_t, a < b ? a : b)
SIMT_REDUCTION(max_unsigned, uint32_t, a > b ? a : b)
SIMT_REDUCTION(bit_and, uint32_t, a& b)
SIMT_REDUCTION(bit_or, uint32_t, a | b)
SIMT_REDUCTION(bit_xor, uint32_t, a ^ b)
#undef SIMT_REDUCTION

}  // namespace

const Collective kSyncWarp = {"__syncwarp", sync, true};
const Collective kShfl = {"__shfl_sync", shuffle, false};
const Collective kShflUp = {"__shfl_up_sync", shuffle, false};
const Collective kShflDown = {"__shfl_down_sync", shuffle, false};
const Collective kShflXor = {"__shfl_xor_sync", shuffle, false};
const Collective kBallot = {"__ballot_sync", ballot, false};
const Collective kAny = {"__any_sync", any, false};
const Collective kAll = {"__all_sync", all, false};
const Collective kMatchAny = {"__match_any_sync", match_any, false};
const Collective kMatchAll = {"__match_all_sync", match_all, false};
const Collective kReduceAddSigned = {"__reduce_add_sync", add, false};
const Collective kReduceMinSigned = {"__reduce_min_sync", min_signed, false};
const Collective kReduceMaxSigned = {"__reduce_max_sync", max_signed, false};
const Collective kReduceAdd = {"__reduce_add_sync", add, false};
const Collective kReduceMin = {"__reduce_min_sync", min_unsigned, false};
const Collective kReduceMax = {"__reduce_max_sync", max_unsigned, false};
const Collective kReduceAnd = {"__reduce_and_sync", bit_and, false};
const Collective kReduceOr = {"__reduce_or_sync", bit_or, false};
const Collective kReduceXor = {"__reduce_xor_sync", bit_xor, false};

}  // namespace detail
}  // namespace simt
