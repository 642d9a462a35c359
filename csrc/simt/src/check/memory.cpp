#include "check/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

namespace simt {
namespace detail {

// ---- Cells --------------------------------------------------------------------------------------

CellPool::~CellPool() {
    for (const Chunk& chunk : chunks_) munmap(chunk.cells, chunk.size * sizeof(Cell));
}

Cell* CellPool::take(std::size_t count) {
    constexpr std::size_t kChunk = std::size_t(1) << 18;
    for (; chunk_ < chunks_.size(); ++chunk_, used_ = 0) {
        if (chunks_[chunk_].size - used_ < count) continue;
        Cell* cells = chunks_[chunk_].cells + used_;
        used_ += count;
        return cells;
    }
    const std::size_t size = std::max(count, kChunk);
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* memory = mmap(nullptr, size * sizeof(Cell), PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    chunks_.push_back({static_cast<Cell*>(memory), size});
    used_ = count;
    return chunks_.back().cells;
}

// One chunk is kept; what a large tensor needed goes back to the system.
void CellPool::give_back_all() {
    while (chunks_.size() > 1) {
        munmap(chunks_.back().cells, chunks_.back().size * sizeof(Cell));
        chunks_.pop_back();
    }
    chunk_ = used_ = 0;
}

void Granules::refine(unsigned bytes, CellPool& pool) {
    unsigned finer = 0;
    while ((2u << finer) <= bytes) ++finer;
    if (finer >= shift) return;
    const std::size_t old_count = count();
    const Cell* old = cells;
    const unsigned difference = shift - finer;
    shift = finer;
    cells = pool.take(old_count << difference);
    for (std::size_t i = 0; i < old_count << difference; ++i) cells[i] = old[i >> difference];
}

// ---- One tensor ---------------------------------------------------------------------------------

Laid::Laid(const Tensor& given, uint64_t now, unsigned registration)
    : tensor(given),
      low(reinterpret_cast<uintptr_t>(given.data)),
      high(low),
      registration(registration) {
    const bool fresh = given.role == Role::result || given.role == Role::workspace;
    fresh_since = fresh ? now : 0;
    const int64_t element = int64_t(given.element_bytes);
    int64_t last = 0;
    for (std::size_t i = 0; i < given.shape.size(); ++i) {
        if (given.shape[i] == 0) return;  // no elements: an empty range
        last += (given.shape[i] - 1) * given.strides[i];
        const bool moves = given.shape[i] > 1 && given.strides[i] != 0;
        if (moves) axes_.push_back({given.shape[i], given.strides[i] * element, i});
    }
    high = low + uintptr_t(last * element + element);
    std::stable_sort(axes_.begin(), axes_.end(),
                     [](const Axis& a, const Axis& b) { return a.bytes > b.bytes; });
    outer_ = axes_;
    run_ = element;
    while (!outer_.empty() && outer_.back().bytes == run_) {
        run_ *= outer_.back().size;
        outer_.pop_back();
    }
    int64_t extent = run_;
    for (auto axis = outer_.rbegin(); axis != outer_.rend(); ++axis) {
        overlaps_itself_ |= axis->bytes < extent;
        extent += (axis->size - 1) * axis->bytes;
    }
}

bool Laid::contains(uintptr_t address, std::size_t bytes) const {
    if (address < low || address + bytes > high) return false;
    if (overlaps_itself_) return true;
    int64_t offset = int64_t(address - low);
    for (const Axis& axis : outer_)
        offset -= std::min(offset / axis.bytes, axis.size - 1) * axis.bytes;
    return offset + int64_t(bytes) <= run_;
}

std::string Laid::element(uintptr_t address, std::size_t bytes) const {
    const std::string name = "'" + tensor.name + "'";
    const auto number = [](uintptr_t count) {
        return std::to_string(count) + (count == 1 ? " byte" : " bytes");
    };
    if (address < low) return "memory that begins " + number(low - address) + " before " + name;
    if (address >= high)
        return "memory that begins " + number(address - high) + " after the end of " + name;
    std::vector<int64_t> index(tensor.shape.size(), 0);
    int64_t offset = int64_t(address - low);
    for (const Axis& axis : axes_) {
        index[axis.index] = std::min(offset / axis.bytes, axis.size - 1);
        offset -= index[axis.index] * axis.bytes;
    }
    std::string text = name + "[";
    for (std::size_t i = 0; i < index.size(); ++i)
        text += (i ? ", " : "") + std::to_string(index[i]);
    text += "]";
    if (contains(address, bytes)) return text;
    if (address + bytes > high)
        return text + ", the last " + number(address + bytes - high) + " beyond its end";
    if (contains(address, 1)) return text + ", reaching into the gap between its rows";
    const uintptr_t past = uintptr_t(offset) - tensor.element_bytes;
    return "the gap between rows of " + name + ", " + number(past) + " after " + text;
}

// ---- All tensors --------------------------------------------------------------------------------

unsigned Memory::add(const std::vector<Tensor>& tensors, uint64_t now) {
    ++registrations_;
    for (const Tensor& tensor : tensors) tensors_.emplace_back(tensor, now, registrations_);
    lay_out();
    return registrations_;
}

void Memory::forget(unsigned registration) {
    tensors_.remove_if([&](const Laid& laid) { return laid.registration == registration; });
    if (tensors_.empty()) {
        pool_.give_back_all();
        spans_.clear();
        last_ = &none_;
    } else {
        lay_out();
    }
}

// Tensors that overlap share a span: views of one buffer are one memory. Spans that exist keep what
// their cells hold.
void Memory::lay_out() {
    std::vector<const Laid*> sorted;
    for (const Laid& laid : tensors_)
        if (laid.high > laid.low) sorted.push_back(&laid);
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](const Laid* a, const Laid* b) { return a->low < b->low; });
    std::vector<Span> before;
    before.swap(spans_);
    for (const Laid* laid : sorted) {
        if (spans_.empty() || laid->low >= spans_.back().high) {
            spans_.emplace_back();
            spans_.back().low = laid->low;
        }
        Span& span = spans_.back();
        span.high = std::max(span.high, laid->high);
        span.tensors.push_back(laid);
    }
    for (Span& span : spans_) {
        std::size_t element = 4;
        bool remembered = false;
        for (const Laid* laid : span.tensors) {
            element = std::min(element, laid->tensor.element_bytes);
            remembered |= laid->writable();
        }
        span.plain =
            span.tensors.size() == 1 && span.tensors[0]->contains(span.low, span.high - span.low);
        if (!remembered) continue;
        const auto same = std::find_if(before.begin(), before.end(), [&](const Span& old) {
            return old.low == span.low && old.high == span.high && old.cells;
        });
        if (same != before.end()) {
            span.cells = same->cells;
            span.shift = same->shift;
        } else {
            while (element > (std::size_t(1) << span.shift)) ++span.shift;
            span.cells = pool_.take(span.count());
        }
    }
    last_ = &none_;
}

Span* Memory::search(uintptr_t address) {
    const auto after =
        std::upper_bound(spans_.begin(), spans_.end(), address,
                         [](uintptr_t value, const Span& span) { return value < span.low; });
    if (after == spans_.begin() || address >= (after - 1)->high) return nullptr;
    last_ = &*(after - 1);
    return last_;
}

const Laid* Memory::nearest(uintptr_t address) const {
    const Laid* best = nullptr;
    uintptr_t least = 0;
    for (const Laid& laid : tensors_) {
        const uintptr_t far = address < laid.low     ? laid.low - address
                              : address >= laid.high ? address - laid.high + 1
                                                     : 0;
        if (!best || far < least) {
            best = &laid;
            least = far;
        }
    }
    return best;
}

const Span* Memory::span_of(const Laid& tensor) const {
    for (const Span& span : spans_)
        if (tensor.low >= span.low && tensor.high <= span.high) return &span;
    return nullptr;
}

}  // namespace detail
}  // namespace simt
