// match_tree, step 2: one warp a query.
//
// Its lanes look at 32 children at once, one first page each, and go along an edge side by side,
// several tokens each before the first is looked at. The walk itself stays one step after the other.
#pragma once

#include "match_tree/tree.cuh"

namespace yaie::match_tree {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarps = 4;   // queries of a block
constexpr int kTokens = 4;  // of each side, under way at once in a lane
constexpr int kTurn = 32 * kTokens;

// Whether an edge begins with the first page of a query; by each lane for an edge of its own.
__device__ inline bool has_first_page(const Tree& tree, int node, const int* query, int64_t page) {
    const int* edge = tree.edge_tokens + tree.edge_indptr[node];
    if (tree.edge_indptr[node + 1] - tree.edge_indptr[node] < page) return false;
    int64_t equal = 0;
    while (equal < page && edge[equal] == query[equal]) ++equal;
    return equal == page;
}

// The child of a node whose edge begins with the first page of a query, -1 if none does. Siblings
// differ in their first page, so at most one has it. By all lanes.
__device__ inline int find_child(const Tree& tree, int node, const int* query, int64_t page) {
    const int last = tree.child_indptr[node + 1];
    for (int first = tree.child_indptr[node]; first < last; first += 32) {
        const int child = first + threadIdx.x;
        const bool found = child < last && has_first_page(tree, tree.children[child], query, page);
        const unsigned lanes = __ballot_sync(kAllLanes, found);
        if (lanes) return tree.children[first + __ffs(lanes) - 1];
    }
    return -1;
}

// How many of the first `count` tokens are equal before two differ. By all lanes.
__device__ inline int64_t equal_tokens(const int* a, const int* b, int64_t count) {
    for (int64_t start = 0; start < count; start += kTurn) {
        int left[kTokens], right[kTokens];
#pragma unroll
        for (int k = 0; k < kTokens; ++k) {
            const int64_t at = start + k * 32 + threadIdx.x;
            left[k] = at < count ? a[at] : 0;
            right[k] = at < count ? b[at] : 0;
        }
#pragma unroll
        for (int k = 0; k < kTokens; ++k) {
            const unsigned lanes = __ballot_sync(kAllLanes, left[k] != right[k]);
            if (lanes) return start + k * 32 + __ffs(lanes) - 1;
        }
    }
    return count;
}

// Block: x = lane, y = warp. Grid: x = kWarps queries.
__global__ void __launch_bounds__(32 * kWarps)
    warp(int* matched, int* last, Tree tree, const int* queries, const int* q_indptr, int64_t page,
         int64_t count) {
    const int64_t i = int64_t(blockIdx.x) * kWarps + threadIdx.y;
    if (i >= count) return;
    const int* query = queries + q_indptr[i];
    const int64_t length = q_indptr[i + 1] - q_indptr[i];
    int64_t at = 0;
    int node = 0;
    while (length - at >= page) {
        const int next = find_child(tree, node, query + at, page);
        if (next < 0) break;
        const int64_t edge = tree.edge_indptr[next + 1] - tree.edge_indptr[next];
        const int64_t equal = equal_tokens(tree.edge_tokens + tree.edge_indptr[next], query + at,
                                           min(edge, length - at));
        at += equal - equal % page;
        node = next;  // also when the walk stops inside its edge
        if (equal < edge) break;
    }
    if (threadIdx.x == 0) {
        matched[i] = static_cast<int>(at);
        last[i] = node;
    }
}

}  // namespace yaie::match_tree
