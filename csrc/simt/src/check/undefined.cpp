// What GCC calls where -fsanitize=undefined finds that a program has no meaning. libubsan is not
// linked: in a kernel it is a finding, elsewhere the end of the process.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "block/site.h"
#include "check/checker.h"

namespace {

using simt::detail::Checker;
using simt::detail::checking;

struct Location {
    const char* file;
    uint32_t line;
    uint32_t column;
};

// What precedes a handler's data, in all of them but a few.
struct Data {
    Location location;
};
struct Type {
    uint16_t kind, info;
    char name[1];
};
struct TypeMismatch {
    Location location;
    const Type* type;
    unsigned char log_alignment;
    unsigned char access;  // 0 load, 1 store, then references, member accesses and calls
};
struct OutOfBounds {
    Location location;
    const Type* array;
    const Type* index;
};

// The kernel's checker, if one runs; its hooks look away as long as this lives.
struct Kernel {
    Checker* const checker = checking;
    const simt::detail::OutsideKernel outside;
};

[[gnu::cold]] void undefined(const Kernel& kernel, const Location& location,
                             const std::string& what) {
    const simt::detail::Site site{location.file, int(location.line)};
    if (kernel.checker) {
        kernel.checker->undefined(what, simt::detail::Module::self().where(site));
        return;
    }
    if (simt::detail::current) return;  // in the executor, on behalf of a kernel
    std::fprintf(stderr, "undefined behaviour at %s: %s\n", to_string(site).c_str(), what.c_str());
    std::abort();
}

// What would end this process as well: the kernel's thread goes no further.
void stop(const Kernel& kernel, const Location& location, const std::string& what) {
    const simt::detail::Site site{location.file, int(location.line)};
    if (kernel.checker)
        kernel.checker->stop_undefined(what, simt::detail::Module::self().where(site));
    undefined(kernel, location, what);
}

std::string number(uintptr_t value) { return std::to_string(intptr_t(value)); }

}  // namespace

extern "C" {

void __ubsan_handle_type_mismatch_v1(TypeMismatch* data, uintptr_t address) {
    const Kernel kernel;
    const uintptr_t alignment = uintptr_t(1) << data->log_alignment;
    const std::string type = data->type->name;
    if (kernel.checker && address && address % alignment != 0) {
        const simt::detail::Site site{data->location.file, int(data->location.line)};
        kernel.checker->stop_misaligned(
            address, alignment, simt::detail::Module::self().where(site), data->access == 1);
    }
    const std::string what = address ? "an address that is no place for " + type
                                     : "a null pointer to " + type + " is followed";
    address ? undefined(kernel, data->location, what) : stop(kernel, data->location, what);
}
void __ubsan_handle_out_of_bounds(OutOfBounds* data, uintptr_t index) {
    const Kernel kernel;
    undefined(
        kernel, data->location,
        "index " + number(index) + " is out of bounds for type " + std::string(data->array->name));
}
void __ubsan_handle_pointer_overflow(Data* data, uintptr_t, uintptr_t) {
    const Kernel kernel;
    undefined(kernel, data->location,
              "pointer arithmetic goes beyond the address space, or starts at null");
}

#define SIMT_ARITHMETIC(name, act, what)                                                \
    void __ubsan_handle_##name(Data* data, uintptr_t a, uintptr_t b) {                  \
        const Kernel kernel;                                                            \
        act(kernel, data->location,                                                     \
            std::string(what) + " (operands " + number(a) + " and " + number(b) + ")"); \
    }
SIMT_ARITHMETIC(add_overflow, undefined, "the sum of two signed numbers does not fit")
SIMT_ARITHMETIC(sub_overflow, undefined, "the difference of two signed numbers does not fit")
SIMT_ARITHMETIC(mul_overflow, undefined, "the product of two signed numbers does not fit")
SIMT_ARITHMETIC(divrem_overflow, stop, "a division by zero, or of the least number by -1")
SIMT_ARITHMETIC(shift_out_of_bounds, undefined, "a shift by too much, or of a negative number")
#undef SIMT_ARITHMETIC

void __ubsan_handle_negate_overflow(Data* data, uintptr_t value) {
    const Kernel kernel;
    undefined(kernel, data->location, "the negative of " + number(value) + " does not fit");
}
void __ubsan_handle_load_invalid_value(Data* data, uintptr_t value) {
    const Kernel kernel;
    undefined(kernel, data->location, number(value) + " is no value of a bool or enumeration");
}
void __ubsan_handle_vla_bound_not_positive(Data* data, uintptr_t) {
    const Kernel kernel;
    undefined(kernel, data->location, "an array of negative size");
}
void __ubsan_handle_nonnull_arg(Data* data) {
    const Kernel kernel;
    undefined(kernel, data->location, "a null pointer is passed where none may be");
}
void __ubsan_handle_nonnull_return_v1(Data*, Location* location) {
    const Kernel kernel;
    undefined(kernel, *location, "a null pointer is returned where none may be");
}
void __ubsan_handle_invalid_builtin(Data* data) {
    const Kernel kernel;
    undefined(kernel, data->location, "0 is passed to a count of leading or trailing zeros");
}
void __ubsan_handle_float_cast_overflow(Data* data, uintptr_t) {
    const Kernel kernel;
    undefined(kernel, data->location, "a number does not fit the integer it is converted to");
}
[[noreturn]] void __ubsan_handle_builtin_unreachable(Data* data) {
    const Kernel kernel;
    undefined(kernel, data->location, "code that was declared unreachable is reached");
    std::abort();
}
[[noreturn]] void __ubsan_handle_missing_return(Data* data) {
    const Kernel kernel;
    undefined(kernel, data->location, "a function ends without returning its value");
    std::abort();
}

}  // extern "C"
