#include "sample/split.cuh"

#include "common/kernels.h"
#include "common/sampling.h"

namespace yaie {

int sampling_ints_a_part() { return sizeof(sampling::PartState) / sizeof(int); }
int sampling_ints_a_row() { return sizeof(sampling::RowState) / sizeof(int); }

void sample_split(View token, View work, View work_a_row, View found, View logits, View temperature,
                  View top_k, View top_p, View min_p, View seed, View position,
                  StreamHandle stream) {
    Door door("sample");
    door.admit("logits", logits, {"B", "V"}, Kind::float32)
        .admit("seed", seed, {"B"}, Kind::int64)
        .admit("position", position, {"B"}, Kind::int32)
        .admit("token", token, {"B"}, Kind::int32);
    const sampling::Rows rows = sampling::rows(door, logits);
    const auto filters = sampling::filter_rows(door, {temperature, top_k, top_p, min_p});
    const sampling::Work space = sampling::window_work(door, work, work_a_row);
    const auto best = sampling::found<sampling::Candidate>(door, found);
    if (door["B"] == 0) return;
    const sample::Draws draws{seed.as<int64_t>(), position.as<int>()};
    const sampling::Shares first = sampling::shares(door);
    const sampling::Shares second = sampling::shares(door, "parts of read 2");
    const auto on = static_cast<simt::Stream>(stream);
    SIMT_LAUNCH((sampling::survey<sampling::kPartThreads>), first.blocks, first.threads, 0, on,
                rows, filters, space);
    SIMT_LAUNCH_AFTER((sample::choose), grid_x(door, door["B"]), sampling::kBins, 0, on, rows,
                      filters, draws, space);
    SIMT_LAUNCH_AFTER((sample::collect), second.blocks, second.threads, 0, on, token.as<int>(),
                      rows, filters, draws, space.of_row, best);
}

}  // namespace yaie
