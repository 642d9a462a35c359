// Telling the checked build which memory a launch may touch (docs/simt.md). Other builds do nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(SIMT_CHECKED)
#include <string>
#include <vector>
#endif

namespace simt {

enum class Role {
    input,      // holds values, must not be written
    inout,      // holds values, may be written
    result,     // fresh: reading before writing is a fault, and so is an element never written
    workspace,  // fresh: reading before writing is a fault
};

#if defined(SIMT_CHECKED)

struct Tensor {
    std::string name;
    const void* data;
    std::size_t element_bytes;
    std::vector<int64_t> shape;
    std::vector<int64_t> strides;  // in elements
    Role role;
};

// While one of these lives, launches may touch the tensors of all of them, and no other memory but
// the kernel's own. Without any, global memory goes unchecked.
class Registered {
   public:
    explicit Registered(const std::vector<Tensor>& tensors);
    ~Registered();
    Registered(const Registered&) = delete;
    Registered& operator=(const Registered&) = delete;

    // Throws LaunchError if an element of a result was never written.
    void check_results() const;

   private:
    unsigned number_;
};

#endif

}  // namespace simt
