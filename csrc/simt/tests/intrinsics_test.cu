// Math, bit and conversion intrinsics.
#include "check.h"

namespace {

struct Bits {
    int popc, popcll, clz, clzll, ffs, ffsll;
    unsigned brev, perm, perm_high, funnel_l, funnel_r, umulhi, as_uint, max_mixed;
    unsigned long long brevll, umul64hi;
    int mulhi, rn, rz, ru, rd, saturated, of_nan, as_int, min_int;
    unsigned to_unsigned;
};

__global__ void bits(Bits* out, unsigned x, unsigned long long y, float f, float huge, float nan) {
    Bits b;
    b.popc = __popc(x);
    b.popcll = __popcll(y);
    b.clz = __clz(int(x)) + __clz(0);
    b.clzll = __clzll((long long)y);
    b.ffs = __ffs(int(x)) + __ffs(0);
    b.ffsll = __ffsll((long long)y);
    b.brev = __brev(x);
    b.brevll = __brevll(y);
    b.perm = __byte_perm(0x33221100u, 0x77665544u, 0x7140u);
    b.perm_high = __byte_perm(0x80u, 0x7f000000u, 0x00f8u);
    b.funnel_l = __funnelshift_l(0x80000001u, x, 36);
    b.funnel_r = __funnelshift_r(0x80000001u, x, 4);
    b.umulhi = __umulhi(x, 0xfffffff0u);
    b.umul64hi = __umul64hi(y, 0xfffffffffffffff0ull);
    b.mulhi = __mulhi(-int(x), 0x7000000);
    b.rn = __float2int_rn(f);
    b.rz = __float2int_rz(-f);
    b.ru = __float2int_ru(f);
    b.rd = __float2int_rd(-f);
    b.saturated = __float2int_rz(huge);
    b.of_nan = __float2int_rn(nan);
    b.to_unsigned = __float2uint_rn(-huge);
    b.as_int = __float_as_int(f);
    b.as_uint = __float_as_uint(-f);
    b.max_mixed = max(x, -1);
    b.min_int = min(-3, 4);
    *out = b;
}

TEST(bits_and_conversions) {
    check::Buffer<Bits> out(1);
    RUN(bits, 1, 1, 0, out.data(), 0x00f0cc00u, 0x0000123400000100ull, 2.5f, 1e30f, nanf(""));
    const Bits& b = out[0];
    CHECK_EQUAL(8, b.popc);
    CHECK_EQUAL(6, b.popcll);
    CHECK_EQUAL(8 + 32, b.clz);
    CHECK_EQUAL(19, b.clzll);
    CHECK_EQUAL(11 + 0, b.ffs);
    CHECK_EQUAL(9, b.ffsll);
    CHECK_EQUAL(0x00330f00u, b.brev);
    CHECK_EQUAL(0x008000002c480000ull, b.brevll);
    CHECK_EQUAL(0x77114400u, b.perm);
    CHECK_EQUAL(0x80807f80u, b.perm_high);  // bit 3 of a selector is ignored
    CHECK_EQUAL(0x0f0cc008u, b.funnel_l);
    CHECK_EQUAL(0x08000000u, b.funnel_r);
    CHECK_EQUAL(0x00f0cbffu, b.umulhi);
    CHECK_EQUAL(0x00001234000000ffull, b.umul64hi);
    CHECK_EQUAL(int((-(long long)0x00f0cc00 * 0x7000000) >> 32), b.mulhi);
    CHECK_EQUAL(2, b.rn);
    CHECK_EQUAL(-2, b.rz);
    CHECK_EQUAL(3, b.ru);
    CHECK_EQUAL(-3, b.rd);
    CHECK_EQUAL(2147483647, b.saturated);
    CHECK_EQUAL(0, b.of_nan);
    CHECK_EQUAL(0u, b.to_unsigned);
    CHECK_EQUAL(0x40200000, b.as_int);
    CHECK_EQUAL(0xc0200000u, b.as_uint);
    CHECK_EQUAL(0xffffffffu, b.max_mixed);
    CHECK_EQUAL(-3, b.min_int);
}

__global__ void maths(float* out, const float* one, float x, float nan) {
    int i = 0;
    out[i++] = __expf(x) / expf(x);
    out[i++] = __logf(x) / logf(x);
    out[i++] = __powf(x, 1.5f) / powf(x, 1.5f);
    out[i++] = __sinf(x) / sinf(x);
    out[i++] = rsqrtf(x) * sqrtf(x);
    out[i++] = __fdividef(x, x);
    out[i++] = __frcp_rn(x) * x;
    out[i++] = __fmaf_rn(x, 0.0f, 1.0f);
    out[i++] = fma(x, 0.0f, 1.0f);
    out[i++] = min(nan, 1.0f);
    out[i++] = max(1.0f, nan);
    out[i++] = __saturatef(x + 10.0f);
    out[i++] = 1.0f + __saturatef(nan);
    out[i++] = exp2f(0.0f);
    out[i++] = __ldg(one);
    out[i++] = float(rsqrt(double(1.0f)));
}

TEST(maths_functions) {
    constexpr int n = 16;
    check::Buffer<float> out(n);
    check::Buffer<float> one(1, 1.0f);
    RUN(maths, 1, 1, 0, out.data(), one.data(), 1.75f, nanf(""));
    for (std::size_t i = 0; i < n; ++i) CHECK(std::fabs(out[i] - 1.0f) < 1e-5f);
}

struct Layout {
    std::size_t size, alignment;
    bool operator==(const Layout& o) const { return size == o.size && alignment == o.alignment; }
};

template <class T>
Layout layout() {
    return {sizeof(T), alignof(T)};
}

TEST(vector_types_are_laid_out_as_in_cuda) {
    CHECK((layout<float2>() == Layout{8, 8}));
    CHECK((layout<float3>() == Layout{12, 4}));
    CHECK((layout<float4>() == Layout{16, 16}));
    CHECK((layout<uint4>() == Layout{16, 16}));
    CHECK((layout<int2>() == Layout{8, 8}));
    CHECK((layout<uchar4>() == Layout{4, 4}));
    CHECK((layout<char2>() == Layout{2, 2}));
    CHECK((layout<short3>() == Layout{6, 2}));
    CHECK((layout<ushort4>() == Layout{8, 8}));
    CHECK((layout<double2>() == Layout{16, 16}));
    CHECK((layout<ulonglong2>() == Layout{16, 16}));
    CHECK((layout<__half2>() == Layout{4, 4}));
    const float4 v = make_float4(1, 2, 3, 4);
    CHECK_EQUAL(10.0f, v.x + v.y + v.z + v.w);
    const dim3 d(7);
    CHECK_EQUAL(7u, d.x * d.y * d.z);
}

}  // namespace
