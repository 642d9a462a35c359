#include "filter_tokens/split.cuh"

#include "common/kernels.h"
#include "common/sampling.h"

namespace yaie {

void filter_tokens_split(View probs, View work, View work_a_row, View found, View logits,
                         View temperature, View top_k, View top_p, View min_p,
                         StreamHandle stream) {
    Door door("filter_tokens");
    door.admit("logits", logits, {"B", "V"}, Kind::float32)
        .admit("probs", probs, {"B", "V"}, Kind::float32, Layout::contiguous);
    const sampling::Rows rows = sampling::rows(door, logits);
    const auto filters = sampling::filter_rows(door, {temperature, top_k, top_p, min_p});
    const sampling::Work space = sampling::window_work(door, work, work_a_row);
    const auto kept = sampling::found<filter_tokens::Sum64>(door, found);
    if (door["B"] == 0) return;
    const sampling::Shares first = sampling::shares(door);
    const sampling::Shares second = sampling::shares(door, "parts of read 2");
    const auto on = static_cast<simt::Stream>(stream);
    SIMT_LAUNCH((sampling::survey<sampling::kPartThreads>), first.blocks, first.threads, 0, on,
                rows, filters, space);
    SIMT_LAUNCH_AFTER((filter_tokens::choose), grid_x(door, door["B"]), sampling::kBins, 0, on,
                      rows, filters, space);
    SIMT_LAUNCH_AFTER((filter_tokens::collect), second.blocks, second.threads, 0, on, rows, filters,
                      space.of_row, kept);
    SIMT_LAUNCH_AFTER((filter_tokens::store_shares), first.blocks, first.threads, 0, on,
                      probs.as<float>(), rows, filters, space);
}

}  // namespace yaie
