// cp.async: a copy begins, and is done when its thread waits for it.
#include <cstring>

#include "block/block_runner.h"
#include "simt/collective/async_copy.h"

namespace simt {
namespace detail {

constexpr unsigned kUntilEarlyEnd = 32;  // times at most that threads let others run

void AsyncCopy::end() {
    if (ended) return;
    if (from)
        std::memcpy(to, from, std::size_t(bytes));
    else
        std::memset(to, 0, std::size_t(bytes));
    ended = true;
}

// The destination holds NaN until then, so that whoever looks too early is seen to.
void BlockRunner::begin_copy(const Lane& self, const AsyncCopy& copy) {
    CopyQueue& queue = copies_of(self);
    std::memset(copy.to, 0xff, std::size_t(copy.bytes));
    queue.copies.push_back(copy);
}

void BlockRunner::commit_copies(const Lane& self) {
    CopyQueue& queue = copies_of(self);
    queue.groups.push_back(queue.copies.size());
}

void BlockRunner::wait_for_copies(const Lane& self, int groups, Site site) {
    CopyQueue& queue = copies_of(self);
    std::size_t done = queue.copies.size(), done_groups = queue.groups.size();
    if (groups != kAllCopies) {
        if (queue.groups.size() <= std::size_t(groups)) return;
        done_groups -= std::size_t(groups);
        done = queue.groups[done_groups - 1];
    }
    for (std::size_t i = 0; i < done; ++i) {
        AsyncCopy& copy = queue.copies[i];
        copy.end();
        checker_.copy_ends(copy.to, std::size_t(copy.bytes), site);
    }
    queue.copies.erase(queue.copies.begin(), queue.copies.begin() + std::ptrdiff_t(done));
    queue.groups.erase(queue.groups.begin(), queue.groups.begin() + std::ptrdiff_t(done_groups));
    for (std::size_t& end : queue.groups) end -= done;
}

// Hardware may end a copy long before its thread waits for it, and then over whatever was written
// there since it began: so do schedules that are drawn, now and then. The others never do, for whoever
// looks before he has waited must find NaN.
void BlockRunner::end_copies_early(const Lane& self) {
    if (policy_ == Policy::RoundRobin || policy_ == Policy::Reverse) return;
    if (until_early_end_-- > 0) return;
    until_early_end_ = early_ends_.below(kUntilEarlyEnd);
    for (AsyncCopy& copy : copies_of(self).copies) copy.end();
}

BlockRunner::CopyQueue& BlockRunner::copies_of(const Lane& self) {
    if (!copies_in_use_)
        until_early_end_ = early_ends_.below(kUntilEarlyEnd);  // in each block anew
    copies_in_use_ = true;
    if (copies_.size() < std::size_t(thread_count_)) copies_.resize(std::size_t(thread_count_));
    return copies_[std::size_t(number_of(self))];
}

void begin_copy(void* to, const void* from, int bytes, bool copy, Site site) {
    const std::size_t size = std::size_t(bytes);
    if (copy) note_access(from, size, false, site);
    note_copy(to, size, site);
    const OutsideKernel outside;
    const Lane& self = current_lane();
    self.runner->begin_copy(self, {to, copy ? from : nullptr, bytes});
}

void commit_copies() {
    const OutsideKernel outside;
    const Lane& self = current_lane();
    self.runner->commit_copies(self);
}

void wait_for_copies(int groups, Site site) {
    const OutsideKernel outside;
    const Lane& self = current_lane();
    self.runner->wait_for_copies(self, groups, site);
}

}  // namespace detail
}  // namespace simt
