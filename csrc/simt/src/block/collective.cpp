// Warp collectives: lanes gather, the last to arrive computes for all. One switch per lane.
#include "block/block_runner.h"
#include "block/site.h"

namespace simt {
namespace detail {

uint64_t BlockRunner::collective(Lane& self, const Collective& kind, uint32_t mask, uint64_t value,
                                 uint32_t argument, Site site) {
    Warp& warp = warps_[self.warp];
    if (!(mask >> self.lane & 1)) fail_bad_mask(self, kind, mask, site);
    warp.exchange.value[self.lane] = value;
    warp.exchange.argument[self.lane] = argument;

    Gathering* gathering = find_gathering(warp, mask);
    if (!gathering) {
        gathering = &open_gathering(self, kind, mask, site);
    } else if (gathering->kind != &kind || !same_site(gathering->site, site)) {
        fail_mismatch(self, kind, mask, site, *gathering);
    }
    if (warp.gathering_count > 1) check_other_masks(self, kind, mask, site);
    gathering->arrived |= uint32_t(1) << self.lane;

    if (gathering->arrived == (mask & warp.exists)) {
        complete_gathering(warp, self.warp, *gathering);
        let_others_run(self);
    } else {
        wait(self);
    }
    return warp.exchange.result[self.lane];
}

Gathering* BlockRunner::find_gathering(Warp& warp, uint32_t mask) {
    for (int i = 0; i < warp.gathering_count; ++i)
        if (warp.gatherings[i].mask == mask) return &warp.gatherings[i];
    return nullptr;
}

// The first lane of its mask to arrive. Lanes that a partial warp never had count as arrived.
Gathering& BlockRunner::open_gathering(Lane& self, const Collective& kind, uint32_t mask,
                                       Site site) {
    Warp& warp = warps_[self.warp];
    if (mask & warp.exited) fail_bad_mask(self, kind, mask, site);
    Gathering& opened = warp.gatherings[warp.gathering_count++];
    opened = {mask, 0, &kind, site};
    return opened;
}

// Lanes that wait for this one with another mask, and that this one is about to wait for, would do
// so for ever.
void BlockRunner::check_other_masks(const Lane& self, const Collective& kind, uint32_t mask,
                                    Site site) {
    const Warp& warp = warps_[self.warp];
    for (int i = 0; i < warp.gathering_count; ++i) {
        const Gathering& other = warp.gatherings[i];
        const bool each_waits_for_the_other = other.mask >> self.lane & 1 && other.arrived & mask;
        if (other.mask != mask && each_waits_for_the_other)
            fail_mismatch(self, kind, mask, site, other);
    }
}

void BlockRunner::complete_gathering(Warp& warp, int warp_index, Gathering& gathering) {
    ++stats_.collectives;
    const uint32_t lanes = gathering.arrived;
    const Collective& kind = *gathering.kind;
    gathering = warp.gatherings[--warp.gathering_count];
    if (kind.orders_memory) checker_.order().warp_barrier(warp_index, lanes);
    kind.complete(warp.exchange, lanes);
    make_ready(warp_index, lanes);
}

// Checked here, where the lane is known, so that the computation for all need not check.
uint64_t BlockRunner::shuffle(Lane& self, const Collective& kind, uint32_t mask, uint64_t value,
                              uint32_t source, Site site) {
    if (!((mask & warps_[self.warp].exists) >> source & 1))
        fail_source(self, kind, mask, source, site);
    return collective(self, kind, mask, value, source, site);
}

uint64_t shuffle(const Collective& kind, uint32_t mask, uint64_t value, uint32_t source,
                 Site site) {
    const OutsideKernel outside;
    Lane& self = current_lane();
    return self.runner->shuffle(self, kind, mask, value, source, site);
}

uint64_t collective(const Collective& kind, uint32_t mask, uint64_t value, uint32_t argument,
                    Site site) {
    const OutsideKernel outside;
    Lane& self = current_lane();
    return self.runner->collective(self, kind, mask, value, argument, site);
}

}  // namespace detail
}  // namespace simt
