#include "merge_states/vec.cuh"

#include "common/dispatch.h"
#include "merge_states/launch.h"

namespace yaie {
namespace {

template <class T, class Word>
void merge(const Door& door, const View& out, const View& lse, const AttentionState& a,
           const AttentionState& b, StreamHandle stream) {
    const int words = static_cast<int>(door["D"]) / Packed<T, Word>::kCount;
    const dim3 block = token_block(words, static_cast<int>(door["H"]), merge_states::kHeads);
    SIMT_LAUNCH((merge_states::vec<T, Word>), grid_x(door, token_blocks(door["T"], block)), block,
                0, static_cast<simt::Stream>(stream), merge_states::state(a),
                merge_states::state(b), out.as<T>(), lse.as<float>(), door["T"]);
}

}  // namespace

void merge_states_vec(View out, View lse, const AttentionState& a, const AttentionState& b,
                      StreamHandle stream) {
    Door door("merge_states");
    merge_states::check(door, out, lse, a, b);
    if (out.size() == 0) return;
    AccessWidth access;
    const int bytes = fold(fold(fold(access, a.out), b.out), out).bytes();
    YAIE_FLOAT_SWITCH(
        out.dtype, T,
        YAIE_FLOAT_WORD_SWITCH(bytes, T, Word, merge<T, Word>(door, out, lse, a, b, stream)));
}

}  // namespace yaie
