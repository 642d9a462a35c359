// The door of match_tree.
#pragma once

#include "common/check.h"
#include "common/kernels.h"
#include "match_tree/tree.cuh"

namespace yaie::match_tree {

struct Packed {  // the arguments, as bindings hand them over
    View edge_tokens, edge_indptr, child_indptr, children, query, q_indptr;
};

inline Tree admit(Door& door, const View& matched, const View& node, const Packed& in,
                  int64_t page) {
    door.admit("edge_tokens", in.edge_tokens, {"E"}, Kind::int32)
        .admit("edge_indptr", in.edge_indptr, {"n+1"}, Kind::int32)
        .admit("child_indptr", in.child_indptr, {"n+1"}, Kind::int32)
        .admit("children", in.children, {"C"}, Kind::int32)
        .admit("query", in.query, {"Nq"}, Kind::int32)
        .admit("q_indptr", in.q_indptr, {"B+1"}, Kind::int32)
        .admit("matched", matched, {"B"}, Kind::int32)
        .admit("node", node, {"B"}, Kind::int32)
        .require(page >= 1 && door["n"] >= 1, "needs a page of a token and a tree with a root");
    return {in.edge_tokens.as<int>(), in.edge_indptr.as<int>(), in.child_indptr.as<int>(),
            in.children.as<int>()};
}

}  // namespace yaie::match_tree
