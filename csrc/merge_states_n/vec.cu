#include "merge_states_n/vec.cuh"

#include "common/dispatch.h"
#include "merge_states_n/launch.h"

namespace yaie {
namespace {

// Threads of a block: [heads, slices, words]. The slices depend on K and D alone.
dim3 block_of(int states, int heads, int words) {
    constexpr int kMost = merge_states_n::kThreads, kMostSlices = 16, kMostHeads = 64;
    const int x = std::clamp(words, 1, kMost);
    const int wanted = (states + merge_states_n::kInFlight - 1) / merge_states_n::kInFlight;
    const int y = std::clamp(wanted, 1, std::min(kMostSlices, kMost / x));
    return dim3(x, y, std::clamp(kMost / (x * y), 1, std::min(heads, kMostHeads)));
}

template <class T, class Word>
void merge(const Door& door, const View& out, const View& lse, const merge_states_n::States& states,
           StreamHandle stream) {
    const int heads = states.first.out.heads;
    const int words = states.first.out.dim / Packed<T, Word>::kCount;
    const dim3 block = block_of(states.count, heads, words);
    const unsigned groups = (heads + block.z - 1) / block.z;
    SIMT_LAUNCH((merge_states_n::vec<T, Word>), grid_x(door, door["T"] * groups), block, 0,
                static_cast<simt::Stream>(stream), states, out.as<T>(), lse.as<float>(), groups);
}

}  // namespace

void merge_states_n_vec(View out, View lse, View states, View lses, StreamHandle stream) {
    Door door("merge_states_n");
    const merge_states_n::States all = merge_states_n::admit(door, out, lse, states, lses);
    if (out.size() == 0) return;
    AccessWidth access;
    const int bytes = fold(fold(access, states), out).bytes();
    YAIE_FLOAT_SWITCH(
        out.dtype, T,
        YAIE_FLOAT_WORD_SWITCH(bytes, T, Word, merge<T, Word>(door, out, lse, all, stream)));
}

}  // namespace yaie
