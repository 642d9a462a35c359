// __syncthreads and its reductions.
#include "block/block_runner.h"
#include "block/site.h"

namespace simt {
namespace detail {

int BlockRunner::barrier(Lane& self, const char* name, bool predicate, Site site) {
    if (barrier_.arrived == 0) {
        barrier_.name = name;
        barrier_.site = site;
        barrier_.first = &self;
    } else if (!same_site(barrier_.site, site) || !same_text(barrier_.name, name)) {
        fail_divergent_barrier(self, name, site);
    }
    ++barrier_.arrived;
    barrier_.predicates += predicate;
    if (barrier_.arrived == alive_) {
        if (alive_ != thread_count_) fail_barrier_after_exit(self);
        complete_barrier();
        let_others_run(self);
    } else {
        wait(self);
    }
    // The next barrier cannot complete, and change this, before every thread has come here.
    return barrier_.result;
}

void BlockRunner::complete_barrier() {
    ++stats_.barriers;
    checker_.order().block_barrier();
    barrier_.result = barrier_.predicates;
    barrier_.predicates = 0;
    barrier_.arrived = 0;
    for (int w = 0; w < warp_count_; ++w) make_ready(w, warps_[w].exists);
}

int block_barrier(const char* name, bool predicate, Site site) {
    const OutsideKernel outside;
    Lane& self = current_lane();
    return self.runner->barrier(self, name, predicate, site);
}

void yield(Site site) {
    const OutsideKernel outside;
    Lane& self = current_lane();
    if (self.runner->poll(self, 1)) self.runner->fail_polling(self, site);
}

}  // namespace detail
}  // namespace simt
