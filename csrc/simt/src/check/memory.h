// Global memory that a launch may touch, and the cells that remember who touched it.
#pragma once

#include <cstddef>
#include <list>
#include <string>
#include <vector>

#include "check/access.h"
#include "simt/memory.h"

namespace simt {
namespace detail {

// Memory for cells, taken from the front, given back all at once and never cleared.
class CellPool {
   public:
    CellPool() = default;
    ~CellPool();
    CellPool(const CellPool&) = delete;
    CellPool& operator=(const CellPool&) = delete;

    Cell* take(std::size_t count);
    void give_back_all();

   private:
    struct Chunk {
        Cell* cells;
        std::size_t size;
    };
    std::vector<Chunk> chunks_;
    std::size_t chunk_ = 0, used_ = 0;
};

// Memory that has cells: a shared array, or a span of tensors that overlap. Granules are as wide as
// the narrowest access so far.
struct Granules {
    uintptr_t low = 0, high = 0;
    Cell* cells = nullptr;
    unsigned shift = 0;

    std::size_t count() const { return ((high - low) >> shift) + 1; }
    // From now on granules of at most `bytes` bytes; what is known of the wider ones is kept.
    void refine(unsigned bytes, CellPool& pool);
};

// Tensor with its elements as runs of bytes, for the question whether an access stays inside.
struct Laid {
    Tensor tensor;
    uintptr_t low, high;
    uint64_t fresh_since;  // writes with an older stamp do not count; 0: it holds values

    unsigned registration;

    Laid(const Tensor& tensor, uint64_t now, unsigned registration);
    bool contains(uintptr_t address, std::size_t bytes) const;
    bool holds_values() const { return fresh_since == 0; }
    bool writable() const { return tensor.role != Role::input; }
    // "'k_cache'[3, 0, 1, 5]"; says so when some of the bytes are in a gap or outside.
    std::string element(uintptr_t address, std::size_t bytes) const;

   private:
    struct Axis {
        int64_t size;
        int64_t bytes;  // stride
        std::size_t index;
    };
    std::vector<Axis> axes_;  // from the widest stride to the narrowest; none of size 1 or stride 0
    std::vector<Axis> outer_;  // without those that make up a run
    int64_t run_ = 0;          // bytes
    bool overlaps_itself_ = false;
};

struct Span : Granules {
    std::vector<const Laid*> tensors;
    bool plain = false;  // one tensor without gaps
};

class Memory {
   public:
    // The tensors of one Registered, by a number of its own.
    unsigned add(const std::vector<Tensor>& tensors, uint64_t now);
    void forget(unsigned registration);
    const std::list<Laid>& tensors() const { return tensors_; }
    bool empty() const { return tensors_.empty(); }

    // The span that holds an address; nullptr: none.
    Span* find(uintptr_t address) {
        Span* const last = last_;
        if (address - last->low < last->high - last->low) return last;
        return search(address);
    }
    const Laid* nearest(uintptr_t address) const;
    CellPool& pool() { return pool_; }
    const Span* span_of(const Laid& tensor) const;

   private:
    Span* search(uintptr_t address);
    void lay_out();

    std::list<Laid> tensors_;
    unsigned registrations_ = 0;
    std::vector<Span> spans_;  // by address
    Span none_;
    Span* last_ = &none_;
    CellPool pool_;
};

}  // namespace detail
}  // namespace simt
