#include "match_tree/warp.cuh"

#include "match_tree/launch.h"

namespace yaie {

void match_tree_warp(View matched, View node, View edge_tokens, View edge_indptr, View child_indptr,
                     View children, View query, View q_indptr, int64_t page, StreamHandle stream) {
    Door door("match_tree");
    const match_tree::Tree tree = match_tree::admit(
        door, matched, node, {edge_tokens, edge_indptr, child_indptr, children, query, q_indptr},
        page);
    if (matched.size() == 0) return;
    SIMT_LAUNCH((match_tree::warp),
                grid_x(door, (matched.size() + match_tree::kWarps - 1) / match_tree::kWarps),
                dim3(32, match_tree::kWarps), 0, static_cast<simt::Stream>(stream),
                matched.as<int>(), node.as<int>(), tree, query.as<int>(), q_indptr.as<int>(), page,
                matched.size());
}

}  // namespace yaie
