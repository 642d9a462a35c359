#include "rope_append_kv/vec.cuh"

#include "common/dispatch.h"
#include "rope_append_kv/launch.h"

namespace yaie {
namespace {

template <class T, class Word>
void store(const Door& door, const rope_append_kv::Row<T>& row, const rotary::Table& table,
           StreamHandle stream) {
    const int words = std::max(row.k.dim, row.v.dim) / Packed<T, Word>::kCount;
    const int all_heads = row.q.heads + row.k.heads + row.v.heads;
    const dim3 block = token_block((words + 1) / 2, all_heads, rope_append_kv::kHeads);
    const auto vec = table.interleaved ? rope_append_kv::vec<T, Word, true>
                                       : rope_append_kv::vec<T, Word, false>;
    SIMT_LAUNCH(vec, grid_x(door, token_blocks(door["T"], block)), block, 0,
                static_cast<simt::Stream>(stream), row, table, door["T"]);
}

}  // namespace

void rope_append_kv_vec(View q_out, View k_cache, View v_cache, const Appended& in,
                        bool interleaved, StreamHandle stream) {
    Door door("rope_append_kv");
    const rotary::Table table =
        rope_append_kv::check(door, q_out, in, k_cache, v_cache, interleaved);
    if (in.q.size() + in.k.size() + in.v.size() == 0) return;
    const int bytes = rotary::word_bytes(table, {&in.q, &in.k, &in.v, &q_out, &k_cache, &v_cache});
    YAIE_FLOAT_SWITCH(in.q.dtype, T, {
        const rope_append_kv::Row<T> row{heads(in.q),       heads(in.k),     heads(in.v),
                                         q_out.as<T>(),     k_cache.as<T>(), v_cache.as<T>(),
                                         in.slots.as<int>()};
        YAIE_FLOAT_WORD_SWITCH(bytes, T, Word, store<T, Word>(door, row, table, stream));
    });
}

}  // namespace yaie
