#include "check/checker.h"

#include <algorithm>

#include "block/block_runner.h"
#include "block/site.h"

namespace simt {
namespace detail {

__thread Checker* checking __attribute__((tls_model("initial-exec"))) = nullptr;

std::atomic<uint32_t> last_serial{0};

Memory& registered_memory() {
    static __thread Memory* memory = nullptr;  // lives as long as the process
    if (!memory) memory = new Memory;
    return *memory;
}

// ---- Launch, block, thread ----------------------------------------------------------------------

void Checker::begin_launch(const LaunchRequest& request, const Schedule& schedule) {
    request_ = &request;
    schedule_ = to_string(schedule);
    arguments_low_ = reinterpret_cast<uintptr_t>(request.arguments);
    argument_bytes_ = request.argument_bytes;
    armed_ = schedule.policy == Policy::Priority || schedule.preemption > 0;
    memory_ = &registered_memory();
    launch_since_ = make_stamp(last_serial + 1, 0, 0);
    // The serials of a chain are those of its blocks, unless another thread has launched too.
    if (!request.early || last_serial + 1 != first_serial_ + blocks_.size()) {
        first_serial_ = last_serial + 1;
        chain_since_ = launch_since_;
        blocks_.clear();
        globals_.clear();
    }
    findings_.clear();
    shifts_.clear();
    order_.begin_launch();
    Module::self().find_thread_local_block();
}

void Checker::begin_block(uint3 block, int threads, const SharedArena& arena) {
    const uint32_t serial = ++last_serial;
    blocks_.push_back({block, request_->block});
    waited_.assign(std::size_t(threads), !request_->early);
    waited_since_ = ~uint64_t(0);
    block_since_ = make_stamp(serial, 0, 0);
    order_.begin_block(serial, threads);
    for (const Named& variable : shared_) shifts_[variable.key] = variable.shift;
    shared_.clear();
    shared_pool_.give_back_all();
    last_shared_ = 0;
    arena_low_ = reinterpret_cast<uintptr_t>(arena.low());
    arena_bytes_ = SharedArena::kBytes;
    Named variable;  // the dynamic memory, nameless
    variable.key = this;
    variable.low = reinterpret_cast<uintptr_t>(arena.dynamic_base());
    variable.high = variable.low + arena.dynamic_bytes();
    const auto known = shifts_.find(variable.key);
    variable.shift = known == shifts_.end() ? 2 : known->second;
    variable.cells = shared_pool_.take(variable.count());
    shared_.push_back(variable);
}

void Checker::shared_array(const SharedArray& array, void* place) {
    for (const Named& variable : shared_)
        if (variable.key == &array) return;
    Named variable;
    variable.key = &array;
    variable.name = array.name;
    variable.element_bytes = array.element_bytes;
    variable.low = reinterpret_cast<uintptr_t>(place);
    variable.high = variable.low + array.bytes;
    const auto known = shifts_.find(variable.key);
    if (known != shifts_.end()) {
        variable.shift = known->second;
    } else {
        while (variable.shift < 2 && array.element_bytes % (2u << variable.shift) == 0)
            ++variable.shift;
    }
    variable.cells = shared_pool_.take(variable.count());
    shared_.push_back(variable);
}

void Checker::wait_for_launch() {
    waited_[Access{order_.stamp(), 0, 0}.thread()] = true;
    waited_since_ = std::min(waited_since_, order_.stamp());
}

// For the whole block the wait of one thread holds from the next barrier on.
uint64_t Checker::unordered_since() const {
    const Access now{order_.stamp(), 0, 0};
    const bool barrier_between = waited_since_ >> kThreadBits < now.stamp >> kThreadBits;
    return waited_[now.thread()] || barrier_between ? launch_since_ : chain_since_;
}

Fault Checker::report() const { return findings_.report(kernel_name(*request_), schedule_); }

// ---- Which memory -------------------------------------------------------------------------------

void Checker::look(uintptr_t address, std::size_t bytes, uint32_t flags, Where where) {
    if (address - arguments_low_ < argument_bytes_) return;  // the thread fetches its parameters
    ++accesses_;
    if (armed_) {
        const OutsideKernel outside;
        runner_.at_access();
    }
    if (address - arena_low_ < arena_bytes_)
        look_shared(address, bytes, flags, where);
    else
        look_global(address, bytes, flags, where);
}

Checker::Named* Checker::find_shared(uintptr_t address) {
    for (std::size_t i = 0; i < shared_.size(); ++i) {
        if (address - shared_[i].low < shared_[i].high - shared_[i].low) {
            last_shared_ = i;
            return &shared_[i];
        }
    }
    return nullptr;
}

void Checker::look_shared(uintptr_t address, std::size_t bytes, uint32_t flags, Where where) {
    Named* variable = &shared_[last_shared_];
    if (address - variable->low >= variable->high - variable->low) variable = find_shared(address);
    if (!variable || address + bytes > variable->high)
        stop_out_of_bounds(address, bytes, flags, where);
    touch(*variable, address, bytes, flags, where, block_since_, block_since_);
}

void Checker::look_global(uintptr_t address, std::size_t bytes, uint32_t flags, Where where) {
    Span* const span = memory_->find(address);
    if (!span) return look_elsewhere(address, bytes, flags, where);
    if (!span->plain) return look_overlapping(*span, address, bytes, flags, where);
    if (address + bytes > span->high) stop_out_of_bounds(address, bytes, flags, where);
    const Laid& tensor = *span->tensors[0];
    if (!span->cells) {
        if (flags & kWrites)
            report(kReadOnly, address, bytes, flags, where,
                   "The op does not change this argument.");
        return;
    }
    touch(*span, address, bytes, flags, where, unordered_since(), tensor.fresh_since);
}

// Tensors with gaps, or several that share memory: some one of them must allow the access.
void Checker::look_overlapping(Span& span, uintptr_t address, std::size_t bytes, uint32_t flags,
                               Where where) {
    bool inside = false, writable = false;
    uint64_t fresh_since = ~uint64_t(0);
    for (const Laid* tensor : span.tensors) {
        if (!tensor->contains(address, bytes)) continue;
        inside = true;
        writable |= tensor->writable();
        fresh_since = std::min(fresh_since, tensor->fresh_since);
    }
    if (!inside) stop_out_of_bounds(address, bytes, flags, where);
    if ((flags & kWrites) && !writable)
        return report(kReadOnly, address, bytes, flags, where,
                      "The op does not change this argument.");
    if (span.cells) touch(span, address, bytes, flags, where, unordered_since(), fresh_since);
}

void Checker::look_elsewhere(uintptr_t address, std::size_t bytes, uint32_t flags, Where where) {
    const OutsideKernel outside;
    if (look_module(address, bytes, flags, where)) return;
    if (const Lane* owner = runner_.owner_of_stack(address)) {
        Finding finding{kForeignStack,
                        side(flags, where),
                        bytes,
                        "a local variable of thread " + to_string(owner->thread_index),
                        false,
                        {},
                        "Local memory is a thread's own on a GPU."};
        if (findings_.is_new(finding.kind, where, 0)) findings_.add(finding);
        return;
    }
    if (memory_->empty()) return;  // nobody said what the kernel may touch
    stop_out_of_bounds(address, bytes, flags, where);
}

// A plain __shared__ variable is thread-local here, a __device__ one a global.
bool Checker::look_module(uintptr_t address, std::size_t bytes, uint32_t flags, Where where) {
    Module& module = Module::self();
    const bool local = address - module.thread_local_low() < module.thread_local_bytes();
    if (!local && !module.holds(address)) return false;
    const Variable* variable = local ? module.thread_local_at(address) : module.global_at(address);
    if (!variable) {
        if (local) stop_out_of_bounds(address, bytes, flags, where);
        return true;  // a constant without a name
    }
    Named& known = globals_[variable];
    if (!known.cells) {
        known.key = variable;
        known.name = variable->name;
        known.low = local ? module.thread_local_low() + variable->offset : address;
        if (!local) known.low = module.address_of(*variable);
        known.high = known.low + variable->bytes;
        known.shift = variable->bytes % 4 == 0 ? 2 : variable->bytes % 2 == 0 ? 1 : 0;
        known.cells = memory_->pool().take(known.count());
    }
    if (address + bytes > known.high) stop_out_of_bounds(address, bytes, flags, where);
    touch(known, address, bytes, flags, where, local ? block_since_ : unordered_since(),
          local ? block_since_ : 0);
    return true;
}

// ---- What the cells remember --------------------------------------------------------------------

void Checker::touch(Granules& granules, uintptr_t address, std::size_t bytes, uint32_t flags,
                    Where where, uint64_t since, uint64_t fresh_since) {
    const uintptr_t offset = address - granules.low;
    const uintptr_t mask = (uintptr_t(1) << granules.shift) - 1;
    if (((offset | bytes) & mask) != 0) {
        const OutsideKernel outside;
        const uintptr_t together = offset | bytes;
        granules.refine(unsigned(together & (~together + 1)),
                        &granules >= shared_.data() && &granules < shared_.data() + shared_.size()
                            ? shared_pool_
                            : memory_->pool());
    }
    const Access now{order_.stamp(), order_.clock() | flags, where};
    Cell* cell = granules.cells + (offset >> granules.shift);
    Cell* const last = granules.cells + ((offset + bytes - 1) >> granules.shift);
    if (cell == last)
        touch_cell(*cell, flags, now, since, fresh_since, address, bytes);
    else
        touch_cells(cell, last, flags, now, since, fresh_since, address, bytes);
}

// The granules of a wide access have mostly the same past, and so have the same future.
void Checker::touch_cells(Cell* cell, Cell* last, uint32_t flags, const Access& now, uint64_t since,
                          uint64_t fresh_since, uintptr_t address, std::size_t bytes) {
    for (; cell <= last; ++cell) {
        const Cell past = *cell;
        touch_cell(*cell, flags, now, since, fresh_since, address, bytes);
        const Cell& present = *cell;
        while (cell < last && cell[1] == past) *++cell = present;
    }
}

__attribute__((always_inline)) inline void Checker::touch_cell(Cell& cell, uint32_t flags,
                                                               const Access& now, uint64_t since,
                                                               uint64_t fresh_since,
                                                               uintptr_t address,
                                                               std::size_t bytes) {
    const bool reads = !(flags & kWrites) || (flags & (kAtomic | kVolatile)) == kAtomic;
    if (reads && cell.write.stamp < fresh_since)
        report(kUninitialised, address, bytes, flags, now.where,
               "Nothing was written there before: initialise it, or do not read it.");
    if (conflicts(cell.write, flags, since)) report_race(cell.write, now, address, bytes);
    if (flags & kWrites) {
        for (const Access& other : cell.other)
            if (conflicts(other, flags, since)) report_race(other, now, address, bytes);
        // An atomic update has seen those before it, so what follows it follows them.
        const bool hides_other = (flags & kVolatile) && (cell.write.flags() & kAtomic) &&
                                 cell.write.stamp >= since && !order_.precedes(cell.write);
        if (hides_other) {
            remember(cell, cell.write, since);
        } else {
            cell.other[0].stamp = cell.other[1].stamp = 0;
        }
        cell.write = now;
        return;
    }
    for (const Access& other : cell.other)
        if ((other.clock & kWrites) && conflicts(other, flags, since))
            report_race(other, now, address, bytes);
    if (cell.other[0].stamp == now.stamp) {
        cell.other[0] = now;
        return;
    }
    remember(cell, now, since);
}

__attribute__((always_inline)) inline bool Checker::conflicts(const Access& past, uint32_t flags,
                                                              uint64_t since) const {
    if (past.stamp < since) return false;
    const uint32_t before = past.clock;
    if (before & kPending) return true;  // whoever touches it, even who began the copy
    if (!((before | flags) & kWrites)) return false;
    if ((before & flags & kAtomic) && (!((before | flags) & kOfBlock) || order_.same_block(past)))
        return false;
    return !order_.precedes(past);
}

// Keeps two accesses: what is ordered before this one may go, and of three the two far apart.
inline void Checker::remember(Cell& cell, const Access& access, uint64_t since) {
    Access& first = cell.other[0];
    Access& second = cell.other[1];
    if (first.stamp < since || order_.precedes(first)) {
        first = access;
    } else if (second.stamp < since || order_.precedes(second) ||
               ((first.stamp ^ second.stamp) < (first.stamp ^ access.stamp))) {
        second = access;
    }
}

// A thread may wait for another in a loop of atomics or volatile reads: now and then that one runs.
void Checker::count_poll(Where where) {
    constexpr unsigned kPatience = 256;
    if (++polls_ < kPatience) return;
    polls_ = 0;
    const OutsideKernel outside;
    if (runner_.poll(current_lane(), kPatience))
        stop(kDeadlock, 0, 0, where,
             "threads poll, and nothing changes: " + runner_.who_waits_where(), kPollingAdvice);
}

void Checker::atomic(uintptr_t address, std::size_t bytes, Scope scope, Where where) {
    count_poll(where);
    const uint32_t of_block = scope == Scope::block ? uint32_t(kOfBlock) : 0u;
    require(address, bytes, true, false, where);
    access(address, bytes, kWrites | kAtomic | of_block, where);
    const OutsideKernel outside;
    order_.atomic(address, scope, true, true);
}

void Checker::volatile_access(uintptr_t address, std::size_t bytes, uint32_t flags, Where where) {
    if (address - stack_low_ < stack_bytes_) return;
    count_poll(where);
    const bool writes = (flags & kWrites) != 0;
    const bool read_before = volatile_read_ == address;
    if (writes && read_before) check_update(address, bytes, where);
    look(address, bytes, flags | kAtomic | kVolatile, where);
    const OutsideKernel outside;
    volatile_read_ = writes ? 0 : address;
    volatile_read_where_ = where;
    order_.atomic(address, Scope::system, !writes, writes);
}

// `(*p)++` on a volatile: a read and a write, between which another thread's write is lost.
void Checker::check_update(uintptr_t address, std::size_t bytes, Where where) {
    const OutsideKernel outside;
    const uint64_t since = address - arena_low_ < arena_bytes_ ? block_since_ : launch_since_;
    const Cell* cell = find_cell(address);
    if (!cell || cell->write.stamp < since || order_.precedes(cell->write)) return;
    Module& module = Module::self();
    module.resolve({where, volatile_read_where_});
    if (module.line(where) != module.line(volatile_read_where_)) return;
    report_race(cell->write, {order_.stamp(), order_.clock() | kWrites, where}, address, bytes);
}

void Checker::constant_load(uintptr_t address, std::size_t bytes, Site site) {
    const Cell* cell = find_cell(address);
    // An early launch runs while the ones before write, so no wait makes this memory constant.
    if (!cell || cell->write.stamp < chain_since_) return;
    const OutsideKernel outside;
    const Where where = Module::self().where(site);
    if (!findings_.is_new(kStale, where, cell->write.where)) return;
    findings_.add({kStale, side(0, where), bytes, object(address, bytes), true, side(cell->write),
                   "__ldg is for what no thread writes while the kernel runs: use a plain load."});
}

void Checker::copy_begins(uintptr_t to, std::size_t bytes, Where where) {
    access(to, bytes, kWrites, where);
    for_cells(to, bytes, [](Cell& cell) { cell.write.clock |= kPending; });
}

void Checker::copy_ends(void* to, std::size_t bytes, Site site) {
    const Access written{order_.stamp(), order_.clock() | kWrites, Module::self().where(site)};
    for_cells(reinterpret_cast<uintptr_t>(to), bytes, [&](Cell& cell) { cell.write = written; });
}

const Cell* Checker::find_cell(uintptr_t address) {
    const Granules* memory = nullptr;
    if (address - arena_low_ < arena_bytes_)
        memory = find_shared(address);
    else
        memory = memory_->find(address);
    return memory && memory->cells ? memory->cells + ((address - memory->low) >> memory->shift)
                                   : nullptr;
}

template <class Function>
void Checker::for_cells(uintptr_t address, std::size_t bytes, Function function) {
    const Named* variable = find_shared(address);
    if (!variable) return;
    Cell* cell = variable->cells + ((address - variable->low) >> variable->shift);
    for (std::size_t count = bytes >> variable->shift; count > 0; --count) function(*cell++);
}

void Checker::require(uintptr_t address, std::size_t bytes, bool write, bool shared, Where where) {
    if (address % bytes != 0) stop_misaligned(address, bytes, where, write);
    const Module& module = Module::self();
    const bool in_shared = address - arena_low_ < arena_bytes_ ||
                           address - module.thread_local_low() < module.thread_local_bytes();
    if (shared && !in_shared)
        stop(kNotShared, bytes, write ? uint32_t(kWrites) : 0u, where, object(address, bytes),
             "This instruction works on shared memory only.");
}

// ---- Findings -----------------------------------------------------------------------------------

Side Checker::side(uint32_t flags, Where where) const {
    const Lane& self = current_lane();
    return {self.block->block_index, self.thread_index, flags, where};
}

Side Checker::side(const Access& past) const {
    const auto [block, shape] = blocks_[past.serial() - first_serial_];
    const unsigned thread = past.thread();
    const uint3 index = {thread % shape.x, thread / shape.x % shape.y, thread / shape.x / shape.y};
    return {block, index, past.flags(), past.where};
}

std::string Checker::named(const Named& variable, const char* what, uintptr_t address) const {
    std::string text = what;
    if (!variable.name.empty()) text += " '" + variable.name + "'";
    const std::string bytes = std::to_string(variable.high - variable.low);
    if (address < variable.low)
        return text + " (" + bytes + " bytes), " + std::to_string(variable.low - address) +
               " bytes before it";
    const uintptr_t offset = address - variable.low;
    if (address >= variable.high)
        return text + " (" + bytes + " bytes), at byte " + std::to_string(offset);
    if (variable.element_bytes > 1)
        text += ", element " + std::to_string(offset / variable.element_bytes);
    return text + " (byte " + std::to_string(offset) + ")";
}

std::string Checker::object(uintptr_t address, std::size_t bytes) const {
    if (address - arena_low_ < arena_bytes_) {
        const Named* best = nullptr;
        uintptr_t least = 0;
        for (const Named& variable : shared_) {
            if (variable.low == variable.high && shared_.size() > 1) continue;
            const uintptr_t far = address < variable.low     ? variable.low - address
                                  : address >= variable.high ? address - variable.high + 1
                                                             : 0;
            if (best && far >= least) continue;
            best = &variable;
            least = far;
        }
        const bool dynamic = best->name.empty();
        return named(*best, dynamic ? "dynamic shared memory" : "shared array", address);
    }
    for (const auto& entry : globals_)
        if (address - entry.second.low < entry.second.high - entry.second.low)
            return named(entry.second, "variable", address);
    if (const Laid* tensor = memory_->nearest(address)) return tensor->element(address, bytes);
    return "unregistered memory";
}

void Checker::report(const char* kind, uintptr_t address, std::size_t bytes, uint32_t flags,
                     Where where, const char* remark) {
    if (!findings_.is_new(kind, where, 0)) return;
    const OutsideKernel outside;
    findings_.add({kind, side(flags, where), bytes, object(address, bytes), false, {}, remark});
}

void Checker::report_race(const Access& past, const Access& now, uintptr_t address,
                          std::size_t bytes) {
    const char* kind = past.flags() & kPending ? kInFlight : kRace;
    if (!findings_.is_new(kind, now.where, past.where)) return;
    const OutsideKernel outside;
    const Side before = side(past), here = side(now.flags(), now.where);
    const bool other_block = !order_.same_block(past);
    const bool one_warp = !other_block && past.thread() / 32 == unsigned(current_lane().warp);
    const char* remark = "No barrier lies between the two.";
    if (kind == kInFlight)
        remark = "Wait for the copy (cp_async_wait), then for the block, before touching it.";
    else if ((past.flags() & kVolatile) && !(now.flags() & kAtomic))
        remark = "A volatile update is a read and a write, and not atomic.";
    else if (past.flags() & now.flags() & kAtomic)
        remark = "One of the two has block scope, and the other is of another block.";
    else if (past.stamp < launch_since_)
        remark =
            "That was in a launch before, which this one need not have seen end: call "
            "await_launch_before() first.";
    else if (other_block)
        remark = "Nothing orders the two blocks: __threadfence() before an atomic would.";
    else if (one_warp)
        remark = "No __syncwarp or barrier lies between the two.";
    findings_.add({kind, here, bytes, object(address, bytes), true, before, remark});
}

void Checker::stop_misaligned(uintptr_t address, std::size_t bytes, Where where, bool write) {
    stop(kMisaligned, bytes, write ? uint32_t(kWrites) : 0u, where,
         object(address, bytes) + ", at an address that is no multiple of " + std::to_string(bytes),
         "The block was stopped before the access, as on a GPU.");
}

void Checker::undefined(const std::string& what, Where where) {
    if (!findings_.is_new(kUndefined, where, 0)) return;
    findings_.add(
        {kUndefined, side(0, where), 0, what, false, {}, "The C++ standard gives it no meaning."});
}

void Checker::stop_undefined(const std::string& what, Where where) {
    stop(kUndefined, 0, 0, where, what, "The C++ standard gives it no meaning.");
}

// The access would hurt this process, so its thread goes no further.
void Checker::stop_out_of_bounds(uintptr_t address, std::size_t bytes, uint32_t flags,
                                 Where where) {
    checking = nullptr;
    stop(kOutOfBounds, bytes, flags, where, object(address, bytes),
         "The block was stopped before the access.");
}

void Checker::stop(const char* kind, std::size_t bytes, uint32_t flags, Where where,
                   const std::string& object, const char* remark) {
    checking = nullptr;
    if (findings_.is_new(kind, where, 0))
        findings_.add({kind, side(flags, where), bytes, object, false, {}, remark});
    runner_.abandon(current_lane());
}

// ---- What kernels call instead of reading a ThreadView ------------------------------------------

uint3 thread_index() { return current->thread_index; }
uint3 block_index() { return current->block->block_index; }
dim3 block_dim() { return current->block->block_dim; }
dim3 grid_dim() { return current->block->grid_dim; }
unsigned lane_id() { return current->lane; }

void note_atomic(const void* address, std::size_t bytes, Scope scope, Site site) {
    Checker* const checker = checking;
    if (!checker) return;
    Where where;
    {
        const OutsideKernel outside;
        where = Module::self().where(site);
    }
    checker->atomic(reinterpret_cast<uintptr_t>(address), bytes, scope, where);
}

void volatile_access(const volatile void* address, std::size_t bytes, uint32_t flags,
                     const void* caller) {
    if (Checker* const checker = checking)
        checker->volatile_access(reinterpret_cast<uintptr_t>(address), bytes, flags,
                                 Module::where_of(caller));
}

namespace {

void note(const void* address, std::size_t bytes, bool write, bool shared, bool copy, Site site) {
    Checker* const checker = checking;
    if (!checker) return;
    const uintptr_t place = reinterpret_cast<uintptr_t>(address);
    Where where;
    {
        const OutsideKernel outside;
        where = Module::self().where(site);
        checker->require(place, bytes, write, shared, where);
    }
    if (copy)
        checker->copy_begins(place, bytes, where);
    else
        checker->access(place, bytes, write ? uint32_t(kWrites) : 0u, where);
}

}  // namespace

void note_access(const void* address, std::size_t bytes, bool write, Site site) {
    note(address, bytes, write, false, false, site);
}
void note_shared_access(const void* address, std::size_t bytes, bool write, Site site) {
    note(address, bytes, write, true, false, site);
}
void note_constant_load(const void* address, std::size_t bytes, Site site) {
    if (Checker* const checker = checking)
        checker->constant_load(reinterpret_cast<uintptr_t>(address), bytes, site);
}
void note_copy(void* to, std::size_t bytes, Site site) { note(to, bytes, true, true, true, site); }

void note_wait_for_launch() {
    Checker* const checker = checking;
    if (!checker) return;
    const OutsideKernel outside;
    checker->wait_for_launch();
}

void fence(Scope scope) {
    Checker* const checker = checking;
    if (!checker) return;
    const OutsideKernel outside;
    checker->order().fence(scope);
}

}  // namespace detail

// ---- Registered memory --------------------------------------------------------------------------

Registered::Registered(const std::vector<Tensor>& tensors) {
    const uint64_t now = detail::make_stamp(detail::last_serial + 1, 0, 0);
    number_ = detail::registered_memory().add(tensors, now);
}

Registered::~Registered() { detail::registered_memory().forget(number_); }

void Registered::check_results() const {
    const detail::Memory& memory = detail::registered_memory();
    for (const detail::Laid& laid : memory.tensors()) {
        if (laid.registration != number_) continue;
        if (laid.tensor.role != Role::result || laid.low == laid.high) continue;
        const detail::Span* span = memory.span_of(laid);
        for (uintptr_t a = laid.low; a < laid.high; a += uintptr_t(1) << span->shift) {
            if (!laid.contains(a, 1)) continue;
            if (span->cells[(a - span->low) >> span->shift].write.stamp >= laid.fresh_since)
                continue;
            throw LaunchError("output not written", "output not written: no kernel wrote " +
                                                        laid.element(a, 1) +
                                                        ". Every element of a "
                                                        "result must be written.");
        }
    }
}

}  // namespace simt
