// What the launchers of the sampling kernels share.
#pragma once

#include <algorithm>

#include "common/check.h"
#include "common/sampling_window.cuh"

namespace yaie::sampling {

// A [B,V] tensor as rows. Tokens are int32 numbers.
inline Rows rows(const Door& door, const View& view) {
    door.require(door["V"] > 0, "V is 0, must be at least 1");
    door.require(door["V"] <= std::numeric_limits<int32_t>::max(), "V is above 2^31 - 1");
    return {view.as<float>(), view.stride[0], static_cast<int>(door["V"])};
}

// How rows are dealt to blocks: an axis of a workspace says how many a row gets.
struct Shares {
    int parts, chunks;  // of a row, and of a part
    unsigned blocks, threads;
};

inline Shares shares(const Door& door, const char* axis = "parts") {
    const int64_t parts = door[axis], whole_row = door["V"] / 4 + 2;  // chunks, at most
    door.require(door["V"] <= (1 << 30), "V is above 2^30");
    door.require(parts >= 1 && parts <= whole_row, std::string(axis) + " must be 1 to V / 4 + 2");
    const int64_t chunks = (whole_row + parts - 1) / parts;
    const int64_t threads = std::min<int64_t>(kPartThreads, (chunks + 31) / 32 * 32);
    return {static_cast<int>(parts), static_cast<int>(chunks), grid_x(door, door["B"] * parts),
            static_cast<unsigned>(threads)};
}

struct FilterViews {
    View temperature, top_k, top_p, min_p;
};

inline FilterRows filter_rows(Door& door, const FilterViews& filter) {
    door.admit("temperature", filter.temperature, {"B"}, Kind::float32)
        .admit("top_k", filter.top_k, {"B"}, Kind::int32)
        .admit("top_p", filter.top_p, {"B"}, Kind::float32)
        .admit("min_p", filter.min_p, {"B"}, Kind::float32);
    return {filter.temperature.as<float>(), filter.top_k.as<int>(), filter.top_p.as<float>(),
            filter.min_p.as<float>()};
}

// Admits the workspaces of a kernel with a window.
inline Work window_work(Door& door, const View& work, const View& work_a_row) {
    static_assert(sizeof(PartState) % 8 == 0 && sizeof(RowState) % 8 == 0, "they lie side by side");
    door.admit("work", work, {"B", "parts", "ints of a part"}, Kind::int32, Layout::contiguous)
        .admit("work_a_row", work_a_row, {"B", "ints of a row"}, Kind::int32, Layout::contiguous);
    door.require(door["ints of a part"] == sizeof(PartState) / 4 &&
                     door["ints of a row"] == sizeof(RowState) / 4,
                 "work and work_a_row: must be sampling_ints_a_part and _a_row numbers long");
    const Shares of_rows = shares(door);
    door.require(of_rows.chunks <= kMostChunks, "parts: must be V / 16384 and more");
    return {work.as<PartState>(), work_a_row.as<RowState>(), of_rows.parts, of_rows.chunks};
}

// Admits the workspace for what read 2 finds, two numbers a part.
template <class T>
Found<T> found(Door& door, const View& view) {
    static_assert(sizeof(T) == 2 * sizeof(int), "the last axis is 2");
    door.admit("found", view, {"B", "parts of read 2", "2"}, Kind::int32, Layout::contiguous);
    const Shares of_rows = shares(door, "parts of read 2");
    return {view.as<T>(), of_rows.parts, of_rows.chunks};
}

}  // namespace yaie::sampling
