// __half and __nv_bfloat16: all 65,536 patterns both ways, ties, specials. Host only.
#include <cmath>
#include <limits>

#include "check.h"

namespace {

using Raw = unsigned short;

// The value by the definition of the format; bits must not be NaN or infinite.
double value_by_definition(int exponent_bits, int mantissa_bits, unsigned bits) {
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const int exponent = int(bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
    const int mantissa = int(bits & ((1u << mantissa_bits) - 1));
    const double magnitude = exponent == 0 ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                                           : std::ldexp(mantissa + (1 << mantissa_bits),
                                                        exponent - bias - mantissa_bits);
    return bits >> 15 ? -magnitude : magnitude;
}

struct Format {
    const char* name;
    int exponent_bits, mantissa_bits;
    Raw (*from_float)(float);
    float (*to_float)(Raw);

    Raw infinity() const { return Raw(((1 << exponent_bits) - 1) << mantissa_bits); }
    double value(unsigned bits) const {
        return value_by_definition(exponent_bits, mantissa_bits, bits);
    }
};

const Format kFormats[] = {
    {"half", 5, 10, [](float x) { return __half_as_ushort(simt::from_float<__half>(x)); },
     [](Raw bits) { return simt::to_float(__ushort_as_half(bits)); }},
    {"half, portable", 5, 10, [](float x) { return Raw(simt::detail::half_bits_portable(x)); },
     [](Raw bits) { return simt::detail::half_value_portable(bits); }},
    {"bfloat16", 8, 7,
     [](float x) { return __bfloat16_as_ushort(simt::from_float<__nv_bfloat16>(x)); },
     [](Raw bits) { return simt::to_float(__ushort_as_bfloat16(bits)); }},
};

bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

void check_to_float(const Format& format) {
    for (unsigned bits = 0; bits < 65536; ++bits) {
        const float x = format.to_float(Raw(bits));
        const Raw magnitude = Raw(bits & 0x7fff);
        if (magnitude > format.infinity()) {
            CHECK(std::isnan(x));
        } else if (magnitude == format.infinity()) {
            CHECK_EQUAL(bits >> 15 ? -INFINITY : INFINITY, x);
        } else {
            CHECK(same_bits(float(format.value(bits)), x));
        }
    }
}

void check_round_trip(const Format& format) {
    for (unsigned bits = 0; bits < 65536; ++bits) {
        const Raw back = format.from_float(format.to_float(Raw(bits)));
        if ((bits & 0x7fff) > format.infinity()) {
            CHECK((back & 0x7fff) > format.infinity());
            CHECK_EQUAL(bits >> 15, unsigned(back) >> 15);
        } else {
            CHECK_EQUAL(bits, unsigned(back));
        }
    }
}

// Between neighbours: the middle goes to the even one, a float beside the middle to the nearer one.
void check_rounding(const Format& format) {
    for (unsigned sign : {0u, 0x8000u}) {
        for (unsigned low = 0; low < format.infinity(); ++low) {
            // Infinity takes the place of the next power of two.
            const double below = format.value(low), above = format.value(low + 1);
            const float middle = float((below + above) / 2);
            if (double(middle) != (below + above) / 2) continue;  // the last bfloat16, in no float
            const float s = sign ? -1.0f : 1.0f;
            const unsigned even = low % 2 == 0 ? low : low + 1;
            CHECK_EQUAL(sign | even, unsigned(format.from_float(s * middle)));
            CHECK_EQUAL(sign | low, unsigned(format.from_float(s * std::nextafter(middle, 0.0f))));
            CHECK_EQUAL(sign | (low + 1),
                        unsigned(format.from_float(s * std::nextafter(middle, INFINITY))));
        }
    }
}

void check_specials(const Format& format) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float signalling = simt::detail::float_from_bits(0x7f800001u);
    for (float x : {nan, -nan, signalling, simt::detail::float_from_bits(0xffffffffu)})
        CHECK((format.from_float(x) & 0x7fff) > format.infinity());
    CHECK_EQUAL(format.infinity(), format.from_float(INFINITY));
    CHECK_EQUAL(Raw(format.infinity() | 0x8000), format.from_float(-INFINITY));
    CHECK_EQUAL(format.infinity(), format.from_float(std::numeric_limits<float>::max()));
    CHECK_EQUAL(Raw(0), format.from_float(0.0f));
    CHECK_EQUAL(Raw(0x8000), format.from_float(-0.0f));
    const float tiny = std::numeric_limits<float>::denorm_min();
    CHECK_EQUAL(Raw(0), format.from_float(tiny));
    CHECK_EQUAL(Raw(0x8000), format.from_float(-tiny));
}

TEST(every_pattern_to_float_and_back) {
    for (const Format& format : kFormats) {
        check::context() = std::string(" [") + format.name + "]";
        check_to_float(format);
        check_round_trip(format);
    }
    check::context().clear();
}

TEST(rounding_to_nearest_even) {
    for (const Format& format : kFormats) {
        check::context() = std::string(" [") + format.name + "]";
        check_rounding(format);
        check_specials(format);
    }
    check::context().clear();
}

// The portable conversion is bit for bit the processor's, NaN payloads included.
TEST(both_half_conversions_agree) {
    uint32_t bits = 0;
    for (int i = 0; i < 4000000; ++i, bits += 1073u) {
        const float x = simt::detail::float_from_bits(bits);
        CHECK_EQUAL(simt::detail::half_bits_portable(x), simt::detail::half_bits(x));
    }
}

// One rounding, although the way leads over float.
TEST(doubles_and_integers_round_once) {
    const double just_above_a_tie = 1.0 + std::ldexp(1, -11) + std::ldexp(1, -40);
    CHECK_EQUAL(0x3c01, int(__half_as_ushort(__double2half(just_above_a_tie))));
    const double just_below_a_tie = 1.0 + 3 * std::ldexp(1, -11) - std::ldexp(1, -40);
    CHECK_EQUAL(0x3c01, int(__half_as_ushort(__double2half(just_below_a_tie))));
    CHECK_EQUAL(0x4b81, int(__bfloat16_as_ushort(__nv_bfloat16((1 << 24) + (1 << 16) + 1))));
    CHECK_EQUAL(0x7c00, int(__half_as_ushort(__half(1e300))));
}

TEST(arithmetic_rounds_once) {
    const __half a = __float2half(1.0f), b = __float2half(std::ldexp(1.0f, -11));
    CHECK_EQUAL(1.0f, __half2float(a + b));
    CHECK_EQUAL(3.0f, __half2float(__hmul(__float2half(1.5f), __float2half(2.0f))));
    CHECK_EQUAL(float(__half(1.0 / 3.0)), __half2float(__half(1.0f) / __half(3.0f)));
    CHECK(__half(2.0f) > a && a == a && !(a < b));
    CHECK_EQUAL(-1.0f, __half2float(-a));
    __nv_bfloat16 c = __float2bfloat16(256.0f);
    c += __nv_bfloat16(1.0f);
    CHECK_EQUAL(256.0f, __bfloat162float(c));
    const float2 pair = __half22float2(__floats2half2_rn(1.0f, 2.0f) + __float2half2_rn(0.5f));
    CHECK_EQUAL(1.5f, pair.x);
    CHECK_EQUAL(2.5f, pair.y);
    CHECK_EQUAL(std::size_t(4), sizeof(__nv_bfloat162));
}

}  // namespace
