// What went wrong, where, and what to do about it.
#include <algorithm>
#include <cstdio>

#include "block/block_runner.h"
#include "block/site.h"

namespace simt {
namespace detail {
namespace {

std::string to_hex(uint32_t mask) {
    char text[16];
    std::snprintf(text, sizeof text, "0x%08x", mask);
    return text;
}

std::string of_thread(const Lane& lane) {
    return ", thread " + to_string(lane.thread_index) + " (warp " + std::to_string(lane.warp) +
           ", lane " + std::to_string(lane.lane) + ")";
}

std::string call(const Collective& kind, uint32_t mask) {
    return std::string(kind.name) + " with mask " + to_hex(mask);
}

}  // namespace

Fault BlockRunner::describe(const char* kind, const std::string& thread, Site site,
                            const std::string& text, const char* advice) const {
    const std::string place = site.file ? ", at " + to_string(site) : "";
    return {kind, "kernel " + kernel_name(*request_) + ": " + kind + " in block " +
                      to_string(view_.block_index) + thread + place + ": " + text + ". " + advice};
}

void BlockRunner::fail(const Lane& self, const char* kind, const std::string& text,
                       const char* advice, Site site) {
    throw describe(kind, of_thread(self), site, text, advice);
}

void BlockRunner::note(const Lane& self, const char* kind, const std::string& text,
                       const char* advice, Site site) {
    fault_ = describe(kind, of_thread(self), site, text, advice);
}

void fail(const char* kind, const char* text, const char* advice, Site site) {
    const OutsideKernel outside;
    const Lane& self = current_lane();
    self.runner->fail(self, kind, text, advice, site);
}

#if !defined(SIMT_CHECKED)
static void note_misaligned(const Lane& self, const void* address, std::size_t bytes, Site site) {
    const std::string needed = std::to_string(bytes);
    const std::string beyond = std::to_string(reinterpret_cast<uintptr_t>(address) % bytes);
    self.runner->note(
        self, "misaligned access",
        needed + " bytes at an address that lies " + beyond + " beyond a multiple of " + needed,
        "The block was stopped before the access, as on a GPU.", site);
}

// The compiler believes of its own checks (block/alignment.cpp) that they do not throw.
void fail_misaligned(const void* address, std::size_t bytes, Site site) {
    const Lane& self = current_lane();
    note_misaligned(self, address, bytes, site);
    self.runner->abandon(self);
}
#endif

Fault BlockRunner::describe_exception(const Lane& self, const char* what) const {
    return describe("exception", of_thread(self), {nullptr, 0},
                    "the kernel threw: " + std::string(what),
                    "Device code cannot throw: check the arguments before the launch.");
}

Fault BlockRunner::describe_damage(const SharedArena::Damage& damage) const {
    return describe("shared memory overrun", "", damage.site, damage.text,
                    "Some thread of the block wrote with an index beyond the array.");
}

void BlockRunner::fail_divergent_barrier(const Lane& self, const char* name, Site site) {
    fail(self, "divergent barrier",
         std::string(name) + " here, but thread " + to_string(barrier_.first->thread_index) +
             " waits in " + barrier_.name + " at " + to_string(barrier_.site),
         "All threads of a block must reach the same barrier on the same line: move it out of the "
         "branch.",
         site);
}

void BlockRunner::fail_barrier_after_exit(const Lane& self) {
    const Lane* exited = &self;
    for (int i = thread_count_; i-- > 0;)
        if (warps_[i / kLanes].exited >> (i % kLanes) & 1) exited = &lanes_[std::size_t(i)];
    const Lane& waiting = *barrier_.first;
    fail(waiting, "barrier after exit",
         std::string(barrier_.name) + " here, but " + std::to_string(thread_count_ - alive_) +
             " of " + std::to_string(thread_count_) +
             " threads have returned from the kernel, the first of them " +
             to_string(exited->thread_index),
         "Keep all threads to the last barrier and guard the work instead of returning early.",
         barrier_.site);
}

void BlockRunner::fail_bad_mask(const Lane& self, const Collective& kind, uint32_t mask,
                                Site site) {
    if (!(mask >> self.lane & 1))
        fail(self, "bad mask", call(kind, mask) + ", which lacks the calling lane",
             "A lane may only call with a mask that contains it.", site);
    fail(self, "exited lane in mask",
         call(kind, mask) + ", which names lanes that have returned from the kernel: " +
             to_hex(mask & warps_[self.warp].exited),
         "Compute the mask while all lanes are there, or keep the lanes to the end.", site);
}

void BlockRunner::fail_exit_in_mask(const Lane& self, const Gathering& gathering) {
    fail(self, "exited lane in mask",
         "the thread returned from the kernel, but lanes " + to_hex(gathering.arrived) +
             " of its warp wait for it in " + call(*gathering.kind, gathering.mask),
         "Compute the mask while all lanes are there, or keep the lanes to the end.",
         gathering.site);
}

void BlockRunner::fail_mismatch(const Lane& self, const Collective& kind, uint32_t mask, Site site,
                                const Gathering& other) {
    fail(self, "divergent collective",
         call(kind, mask) + " here, but lanes " + to_hex(other.arrived) +
             " of the warp wait for this one in " + call(*other.kind, other.mask) + " at " +
             to_string(other.site),
         "All lanes of a mask must reach the same call on the same line, with the same mask.",
         site);
}

void BlockRunner::fail_source(const Lane& self, const Collective& kind, uint32_t mask,
                              uint32_t source, Site site) {
    if (!(mask >> self.lane & 1)) fail_bad_mask(self, kind, mask, site);
    const bool exists = warps_[self.warp].exists >> source & 1;
    fail(self, "shuffle from inactive lane",
         call(kind, mask) + " reads lane " + std::to_string(source) +
             (exists ? ", which is outside the mask" : ", which the block does not have"),
         "What it would read is undefined: widen the mask or narrow the width.", site);
}

void BlockRunner::fail_deadlock(const Lane& self) {
    fail(self, "deadlock", "no thread can go on: " + who_waits_where(),
         "Threads that wait for each other must meet in the same call.", {nullptr, 0});
}

void BlockRunner::fail_polling(const Lane& self, Site site) {
    fail(self, "deadlock", "threads poll, and nothing changes: " + who_waits_where(),
         kPollingAdvice, site);
}

// One entry for each barrier, line and gathering, so a line or two.
std::string BlockRunner::who_waits_where() const {
    std::string text = std::to_string(thread_count_ - alive_) + " threads have returned";
    if (barrier_.arrived)
        text += "; " + std::to_string(barrier_.arrived) + " wait in " + barrier_.name + " at " +
                to_string(barrier_.site) + ", the first of them thread " +
                to_string(barrier_.first->thread_index);
    for (std::size_t i = 0; i < waiters_.size(); ++i) {
        const Waiter& waiter = waiters_[i];
        const auto same = [&](const Waiter& other) { return same_site(other.site, waiter.site); };
        if (std::any_of(waiters_.begin(), waiters_.begin() + std::ptrdiff_t(i), same)) continue;
        const auto count = std::count_if(waiters_.begin(), waiters_.end(), same);
        text += "; " + std::to_string(count) + " wait in " + waiter.name + " at " +
                to_string(waiter.site) + ", the first of them thread " +
                to_string(waiter.lane->thread_index);
    }
    for (int w = 0; w < warp_count_; ++w) {
        for (int i = 0; i < warps_[w].gathering_count; ++i) {
            const Gathering& gathering = warps_[w].gatherings[i];
            text += "; lanes " + to_hex(gathering.arrived) + " of warp " + std::to_string(w) +
                    " wait in " + call(*gathering.kind, gathering.mask) + " at " +
                    to_string(gathering.site);
        }
    }
    return text;
}

}  // namespace detail
}  // namespace simt
