// The tree of a match_tree call: edges and children of its nodes, packed.
#pragma once

#include "simt/simt.h"

namespace yaie::match_tree {

struct Tree {  // n nodes; node 0 is the root
    const int* edge_tokens;
    const int* edge_indptr;   // [n+1]
    const int* child_indptr;  // [n+1]
    const int* children;
};

}  // namespace yaie::match_tree
