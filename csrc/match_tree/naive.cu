#include "match_tree/naive.cuh"

#include "common/check.h"
#include "common/kernels.h"

namespace yaie {

void match_tree_naive(View matched, View node, View edge_tokens, View edge_indptr,
                      View child_indptr, View children, View query, View q_indptr, int64_t page,
                      StreamHandle stream) {
    Door door("match_tree");
    door.admit("edge_tokens", edge_tokens, {"E"}, Kind::int32)
        .admit("edge_indptr", edge_indptr, {"n+1"}, Kind::int32)
        .admit("child_indptr", child_indptr, {"n+1"}, Kind::int32)
        .admit("children", children, {"C"}, Kind::int32)
        .admit("query", query, {"Nq"}, Kind::int32)
        .admit("q_indptr", q_indptr, {"B+1"}, Kind::int32)
        .admit("matched", matched, {"B"}, Kind::int32)
        .admit("node", node, {"B"}, Kind::int32)
        .require(page >= 1 && door["n"] >= 1, "needs a page of a token and a tree with a root");
    if (matched.size() == 0) return;
    const match_tree::Tree tree{edge_tokens.as<int>(), edge_indptr.as<int>(),
                                child_indptr.as<int>(), children.as<int>()};
    SIMT_LAUNCH((match_tree::naive), grid_x(door, (matched.size() + 127) / 128), 128, 0,
                static_cast<simt::Stream>(stream), matched.as<int>(), node.as<int>(), tree,
                query.as<int>(), q_indptr.as<int>(), page, matched.size());
}

}  // namespace yaie
