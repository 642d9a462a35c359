// match_tree, step 1: one thread a query, which walks from the root as the page says it.
//
// Every step waits for the one before: read where the children of the node are, read the first page
// of each until one fits, go along its edge. With many siblings almost all of the time goes into
// first pages that do not fit, one token after the other, while the rest of the GPU has nothing to
// do unless there are thousands of queries.
#pragma once

#include "match_tree/tree.cuh"

namespace yaie::match_tree {

// How many leading tokens of an edge are those of a query of which `rest` tokens are left, in whole
// pages, `most` tokens at most. A multiple of page, because edges are.
__device__ inline int64_t shared_pages(const Tree& tree, int node, const int* query, int64_t rest,
                                       int64_t most, int64_t page) {
    const int64_t first = tree.edge_indptr[node];
    const int64_t length = min(int64_t(tree.edge_indptr[node + 1]) - first, min(rest, most));
    int64_t equal = 0;
    while (equal < length && tree.edge_tokens[first + equal] == query[equal]) ++equal;
    return equal - equal % page;
}

__global__ void naive(int* matched, int* last, Tree tree, const int* queries, const int* q_indptr,
                      int64_t page, int64_t count) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const int* query = queries + q_indptr[i];
    const int64_t length = q_indptr[i + 1] - q_indptr[i];
    int64_t at = 0;
    int node = 0, child = tree.child_indptr[0];
    while (child < tree.child_indptr[node + 1]) {
        const int next = tree.children[child];
        // Siblings differ in their first page: at most one has it, and it alone is read on.
        if (shared_pages(tree, next, query + at, length - at, page, page) == 0) {
            ++child;
            continue;
        }
        const int64_t edge = tree.edge_indptr[next + 1] - tree.edge_indptr[next];
        const int64_t equal = shared_pages(tree, next, query + at, length - at, edge, page);
        at += equal;
        node = next;  // also when the walk stops inside its edge
        if (equal < edge) break;
        child = tree.child_indptr[node];
    }
    matched[i] = static_cast<int>(at);
    last[i] = node;
}

}  // namespace yaie::match_tree
