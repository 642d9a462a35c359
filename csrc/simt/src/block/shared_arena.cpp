#include "block/shared_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace simt {
namespace detail {
namespace {

constexpr std::size_t kRedzone = 128;  // one float for every lane of a warp
constexpr std::size_t kDynamicAlignment = 128;
constexpr std::size_t kStaticAlignment = 16;
constexpr unsigned char kPoison = 0xff;
constexpr uint16_t kRedzoneWord = 0x7ffd;  // NaN as half and bfloat16; repeated, also as float

char* align_up(char* p, std::size_t alignment) {
    return reinterpret_cast<char*>((uintptr_t(p) + alignment - 1) & ~uintptr_t(alignment - 1));
}

// What redzones hold, long enough to fill or compare a whole one at once. Redzones begin where an
// array ends, at any byte, so the place in the pattern goes by the address.
struct RedzonePattern {
    static constexpr std::size_t kChunk = 512;
    unsigned char bytes[kChunk + 1] = {};

    constexpr RedzonePattern() {
        for (std::size_t i = 0; i <= kChunk; ++i)
            bytes[i] = i & 1 ? kRedzoneWord >> 8 : kRedzoneWord & 0xff;
    }
    const unsigned char* at(const char* address) const { return bytes + (uintptr_t(address) & 1); }
};
constexpr RedzonePattern kPattern;

void fill_redzone(char* begin, char* end) {
    for (char* p = begin; p < end; p += RedzonePattern::kChunk)
        std::memcpy(p, kPattern.at(p), std::min<std::size_t>(end - p, RedzonePattern::kChunk));
}

bool redzone_is_intact(const char* begin, const char* end) {
    for (const char* p = begin; p < end; p += RedzonePattern::kChunk) {
        const std::size_t bytes = std::min<std::size_t>(end - p, RedzonePattern::kChunk);
        if (std::memcmp(p, kPattern.at(p), bytes) != 0) return false;
    }
    return true;
}

const char* first_damaged(const char* begin, const char* end) {
    if (redzone_is_intact(begin, end)) return nullptr;
    while ((unsigned char)*begin == *kPattern.at(begin)) ++begin;
    return begin;
}

}  // namespace

SharedArena::SharedArena() {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<char*>(memory);
}

SharedArena::~SharedArena() { munmap(memory_, kBytes); }

void SharedArena::begin_block(std::size_t dynamic_bytes) {
    regions_.clear();
    static_bytes_ = 0;
    dynamic_bytes_ = dynamic_bytes;
    top_ = memory_ + kRedzone;
    fill_redzone(memory_, top_);
    dynamic_base_ = add_region(nullptr, dynamic_bytes, kDynamicAlignment);
}

void* SharedArena::place_new(const SharedArray& array) {
    static_bytes_ += array.bytes;
    if (static_bytes_ > kStaticSharedLimit || static_bytes_ + dynamic_bytes_ > kSharedLimit)
        return nullptr;
    return add_region(&array, array.bytes, std::max(array.alignment, kStaticAlignment));
}

// The redzone before the region is at least the one that ended the region before it.
char* SharedArena::add_region(const SharedArray* array, std::size_t bytes, std::size_t alignment) {
    char* begin = align_up(top_, alignment);
    char* end = begin + bytes;
    char* next_top = end + kRedzone;
    if (next_top > memory_ + kBytes) return nullptr;
    fill_redzone(top_, begin);
    std::memset(begin, kPoison, bytes);
    fill_redzone(end, next_top);
    top_ = next_top;
    regions_.push_back({array, begin, bytes});
    return begin;
}

SharedArena::Damage SharedArena::describe(const Region& region, std::ptrdiff_t offset) const {
    const std::size_t element = region.array ? region.array->element_bytes : 1;
    std::string text = region.array ? "shared array '" + std::string(region.array->name) + "'"
                                    : "dynamic shared memory";
    text += " (" + std::to_string(region.bytes) + " bytes) was written outside: byte offset " +
            std::to_string(offset);
    if (region.array && offset >= 0) text += ", element " + std::to_string(offset / element);
    return {region.array ? region.array->site : Site{nullptr, 0}, text};
}

// A damaged byte between two regions is blamed on the nearer one.
bool SharedArena::find_damage(Damage* damage) const {
    const char* gap = memory_;
    for (std::size_t i = 0; i <= regions_.size(); ++i) {
        const bool last = i == regions_.size();
        const char* gap_end = last ? top_ : regions_[i].begin;
        if (const char* p = first_damaged(gap, gap_end)) {
            const bool before_next = i == 0 || (!last && gap_end - p < p - gap);
            const Region& region = regions_[before_next ? i : i - 1];
            *damage = describe(region, p - region.begin);
            return true;
        }
        if (!last) gap = regions_[i].begin + regions_[i].bytes;
    }
    return false;
}

}  // namespace detail
}  // namespace simt
