#include "rope/vec.cuh"

#include "common/dispatch.h"
#include "common/kernels.h"
#include "common/rope.h"

namespace yaie {
namespace {

template <class T, class Word>
void rotate(const Door& door, const View& y, const View& x, const rotary::Table& table,
            StreamHandle stream) {
    const int words = static_cast<int>(x.shape[2]) / Packed<T, Word>::kCount;
    const dim3 block = token_block((words + 1) / 2, static_cast<int>(x.shape[1]), rope::kHeads);
    const auto vec = table.interleaved ? rope::vec<T, Word, true> : rope::vec<T, Word, false>;
    SIMT_LAUNCH(vec, grid_x(door, token_blocks(x.shape[0], block)), block, 0,
                static_cast<simt::Stream>(stream), heads(x), y.as<T>(), table, x.shape[0]);
}

}  // namespace

void rope_vec(View y, View x, View positions, View cos_sin, bool interleaved, StreamHandle stream) {
    Door door("rope");
    door.admit("x", x, {"T", "H", "D"}, Kind::floating)
        .admit("y", y, {"T", "H", "D"}, Kind::floating, Layout::contiguous);
    const rotary::Table table = rotary::admit(door, positions, cos_sin, interleaved);
    if (y.size() == 0) return;
    const int bytes = rotary::word_bytes(table, {&x, &y});
    YAIE_FLOAT_SWITCH(
        x.dtype, T,
        YAIE_FLOAT_WORD_SWITCH(bytes, T, Word, rotate<T, Word>(door, y, x, table, stream)));
}

}  // namespace yaie
