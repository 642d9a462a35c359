#include "fiber/stack_slab.h"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

#include "fiber/context.h"

namespace simt {
namespace detail {
namespace {

#if defined(SIMT_STACK_BYTES)
constexpr std::size_t kStackBytes = SIMT_STACK_BYTES;
#elif defined(SIMT_ASAN) || defined(SIMT_CHECKED)
constexpr std::size_t kStackBytes = 256 * 1024;  // instrumented frames are several times larger
#else
constexpr std::size_t kStackBytes = 64 * 1024;
#endif

// The guard page makes the distance between stacks something other than a power of two: else the
// same frame of all threads would fall into the same cache sets.
std::size_t guard_bytes() { return std::size_t(sysconf(_SC_PAGESIZE)); }
std::size_t stride() { return kStackBytes + guard_bytes(); }

// Sets of the first-level cache are chosen by bits within a page, so the tops of the stacks are
// staggered as well, over the 64 lines of a page.
std::size_t stagger(int index) { return std::size_t(index * 5 % 64) * 64; }

}  // namespace

StackSlab::StackSlab(int first_index) : first_index_(first_index) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* memory = mmap(nullptr, kStacks * stride(), PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<char*>(memory);
    for (int i = 0; i < kStacks; ++i) {
        if (mprotect(memory_ + i * stride(), guard_bytes(), PROT_NONE) != 0) {
            munmap(memory_, kStacks * stride());
            throw std::bad_alloc();
        }
    }
}

StackSlab::~StackSlab() { munmap(memory_, kStacks * stride()); }

Stack StackSlab::stack(int i) const {
    char* bottom = memory_ + std::size_t(i) * stride() + guard_bytes();
    return {bottom, kStackBytes - stagger(first_index_ + i)};
}

}  // namespace detail
}  // namespace simt
