// Memory for the stacks of fibers.
#pragma once

#include <cstddef>

namespace simt {
namespace detail {

struct Stack {
    char* bottom;
    std::size_t bytes;
};

// A few stacks in one mapping, each above a guard page: a thread that runs out of stack dies of a
// segmentation fault instead of damaging its neighbour.
class StackSlab {
   public:
    static constexpr int kStacks = 32;

    explicit StackSlab(int first_index);  // throws std::bad_alloc
    ~StackSlab();
    StackSlab(const StackSlab&) = delete;
    StackSlab& operator=(const StackSlab&) = delete;

    Stack stack(int i) const;

   private:
    int first_index_;
    char* memory_;
};

}  // namespace detail
}  // namespace simt
