// A thread asks where its shared arrays are.
#include <string>

#include "block/block_runner.h"

namespace simt {
namespace detail {

void* BlockRunner::shared_array(const Lane& self, const SharedArray& array) {
    if (void* place = shared_.place(array)) {
        checker_.shared_array(array, place);
        return place;
    }
    fail(self, "shared memory limit",
         "with shared array '" + std::string(array.name) + "' the block has " +
             std::to_string(shared_.static_bytes()) + " bytes static and " +
             std::to_string(shared_.dynamic_bytes()) + " bytes dynamic shared memory",
         "CUDA allows 48 KiB static, and 227 KiB in all: use dynamic shared memory, or less.",
         array.site);
}

void* BlockRunner::dynamic_shared(const Lane& self, std::size_t offset, std::size_t alignment,
                                  Site site) {
    if (offset > shared_.dynamic_bytes())
        fail(self, "dynamic shared memory",
             "byte offset " + std::to_string(offset) + " of " +
                 std::to_string(shared_.dynamic_bytes()) + " bytes",
             "The launch must ask for as many bytes as the kernel lays out.", site);
    if (offset % alignment != 0)
        fail(self, "dynamic shared memory",
             "byte offset " + std::to_string(offset) + " is not a multiple of the alignment " +
                 std::to_string(alignment),
             "Round the offset up.", site);
    return shared_.dynamic_base() + offset;
}

void* shared_array(const SharedArray& array) {
    const OutsideKernel outside;
    const Lane& self = current_lane();
    return self.runner->shared_array(self, array);
}

void* dynamic_shared_bytes(std::size_t offset, std::size_t alignment, Site site) {
    const OutsideKernel outside;
    const Lane& self = current_lane();
    return self.runner->dynamic_shared(self, offset, alignment, site);
}

}  // namespace detail
}  // namespace simt
