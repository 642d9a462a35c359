// Checks at a launcher's door, before any launch. Axes have names, and a message names op, argument
// and axis: "append_kv: k_cache: Hk is 4, k: Hk is 8".
#pragma once

#include <cctype>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/view.h"

namespace yaie {

// Wrong shape, stride or device is std::invalid_argument (ValueError); a wrong dtype is this
// (TypeError).
struct WrongType : std::runtime_error {
    using std::runtime_error::runtime_error;
};

enum class Kind { any, floating, float32, int32, int64 };
enum class Layout { rows, contiguous };  // rows: only the last stride must be 1

class Door {
   public:
    explicit Door(const char* op) : op_(op) {}

    // Admits one argument. `axes` names its axes; "+1" after a name means one more than it, a number
    // is a fixed size, and "..." at the end leaves the rest open.
    Door& admit(const char* name, const View& view, std::initializer_list<const char*> axes,
                Kind kind, Layout layout = Layout::rows) {
        check_dtype(name, view, kind);
        check_device(name, view);
        check_shape(name, view, axes);
        check_strides(name, view, layout);
        return *this;
    }

    int64_t operator[](const char* axis) const {
        for (const Axis& a : axes_)
            if (a.name == axis) return a.size;
        throw std::logic_error(std::string(op_) + ": no axis " + axis);
    }

    DType dtype() const { return dtype_; }

    void require(bool ok, const std::string& what) const {
        if (!ok) throw std::invalid_argument(std::string(op_) + ": " + what);
    }

   private:
    struct Axis {
        std::string name;
        int64_t size;
        const char* argument;
    };

    void check_dtype(const char* name, const View& view, Kind kind) {
        const bool is_float = view.dtype == DType::float32 || view.dtype == DType::float16 ||
                              view.dtype == DType::bfloat16;
        const bool ok = kind == Kind::any || (kind == Kind::floating && is_float) ||
                        (kind == Kind::float32 && view.dtype == DType::float32) ||
                        (kind == Kind::int32 && view.dtype == DType::int32) ||
                        (kind == Kind::int64 && view.dtype == DType::int64);
        if (!ok) throw WrongType(text(name) + "wrong dtype");
        if (kind != Kind::floating) return;
        if (float_argument_ && view.dtype != dtype_)
            throw WrongType(text(name) + "dtype differs from that of " + float_argument_);
        dtype_ = view.dtype;
        float_argument_ = name;
    }

    void check_device(const char* name, const View& view) {
        if (device_argument_ && view.device != device_)
            throw std::invalid_argument(text(name) + "is on another device than " +
                                        device_argument_);
        device_ = view.device;
        device_argument_ = name;
    }

    void check_shape(const char* name, const View& view, std::initializer_list<const char*> axes) {
        int i = 0;
        for (const char* axis : axes) {
            if (std::string(axis) == "...") return;
            if (i >= view.rank) break;
            bind(name, axis, view.shape[i++]);
        }
        if (view.rank != static_cast<int>(axes.size()))
            throw std::invalid_argument(text(name) + "rank is " + std::to_string(view.rank) +
                                        ", must be " + std::to_string(axes.size()));
    }

    void bind(const char* argument, std::string axis, int64_t size) {
        if (std::isdigit(static_cast<unsigned char>(axis[0]))) {
            if (size != std::stoll(axis))
                throw std::invalid_argument(text(argument) + "an axis is " + std::to_string(size) +
                                            ", must be " + axis);
            return;
        }
        const auto plus = axis.find("+1");
        if (plus != std::string::npos) {
            axis.resize(plus);
            size -= 1;
        }
        for (const Axis& a : axes_) {
            if (a.name != axis) continue;
            if (a.size != size)
                throw std::invalid_argument(text(argument) + axis + " is " + std::to_string(size) +
                                            ", " + a.argument + ": " + axis + " is " +
                                            std::to_string(a.size));
            return;
        }
        axes_.push_back({axis, size, argument});
    }

    void check_strides(const char* name, const View& view, Layout layout) {
        if (view.size() == 0 || view.rank == 0) return;
        if (layout == Layout::contiguous && !view.contiguous())
            throw std::invalid_argument(text(name) + "must be contiguous");
        if (view.shape[view.rank - 1] > 1 && view.stride[view.rank - 1] != 1)
            throw std::invalid_argument(text(name) + "last stride must be 1");
    }

    std::string text(const char* name) const { return std::string(op_) + ": " + name + ": "; }

    const char* op_;
    std::vector<Axis> axes_;
    DType dtype_ = DType::other;
    const char* float_argument_ = nullptr;
    int device_ = -1;
    const char* device_argument_ = nullptr;
};

// A grid's x extent. CUDA allows 2^31 - 1 blocks there; more is refused, never wrapped.
inline unsigned grid_x(const Door& door, int64_t blocks) {
    door.require(blocks <= std::numeric_limits<int32_t>::max(),
                 "needs " + std::to_string(blocks) + " blocks, a grid has 2^31 - 1");
    return static_cast<unsigned>(blocks);
}

}  // namespace yaie
