// The shared memory of one running block: where it lies, what is in it, who wrote past an end.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "simt/vocabulary.h"

namespace simt {
namespace detail {

constexpr std::size_t kStaticSharedLimit = 48 * 1024;
constexpr std::size_t kSharedLimit = 227 * 1024;  // static and dynamic, of one block

// Every array lies between redzones. Arrays start as 0xff bytes, which read as NaN in all floating
// types; redzones hold another NaN, so that a stray write of -1 or NaN shows as well.
class SharedArena {
   public:
    static constexpr std::size_t kBytes = 512 * 1024;  // the limits, with room for redzones

    SharedArena();  // throws std::bad_alloc
    ~SharedArena();
    SharedArena(const SharedArena&) = delete;
    SharedArena& operator=(const SharedArena&) = delete;

    // Forgets all arrays and lays out fresh, poisoned dynamic memory.
    void begin_block(std::size_t dynamic_bytes);

    const char* low() const { return memory_; }
    char* dynamic_base() const { return dynamic_base_; }
    std::size_t dynamic_bytes() const { return dynamic_bytes_; }

    // The array's place in this block, poisoned at the first call. nullptr: over a limit.
    void* place(const SharedArray& array) {
        for (const Region& region : regions_)
            if (region.array == &array) return region.begin;
        return place_new(array);
    }
    std::size_t static_bytes() const { return static_bytes_; }

    struct Damage {
        Site site;         // the declaration; file is nullptr for dynamic memory
        std::string text;  // "shared array 'tile' (4224 bytes) was written 4 bytes past its end"
    };
    // Looks at all redzones; true if one was written to, with the first in *damage.
    bool find_damage(Damage* damage) const;

   private:
    struct Region {
        const SharedArray* array;  // nullptr: the dynamic memory
        char* begin;
        std::size_t bytes;
    };

    void* place_new(const SharedArray& array);
    char* add_region(const SharedArray* array, std::size_t bytes, std::size_t alignment);
    Damage describe(const Region& region, std::ptrdiff_t offset) const;

    char* memory_;
    char* top_ = nullptr;  // end of the last redzone
    std::vector<Region> regions_;
    char* dynamic_base_ = nullptr;
    std::size_t dynamic_bytes_ = 0;
    std::size_t static_bytes_ = 0;
};

}  // namespace detail
}  // namespace simt
