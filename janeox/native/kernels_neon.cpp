// 64-bit ARM with the dot product of bytes (Apple M1, Graviton 2, Cortex-A76 and later).
#include "engine.h"
#if defined(__aarch64__) && defined(__GNUC__)
#if !defined(__clang__)
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif

namespace janeox {
namespace {

struct Simd {
    static constexpr int N = 4, REGISTERS = 32, TILE = 4, INTEGER_TILE = 4, OFFSET = 0;
    using F = float32x4_t;
    using I = int32x4_t;
    static F load(const float* p) { return vld1q_f32(p); }
    static F load(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
    static F load(const int8_t* p) {
        int32_t four;
        __builtin_memcpy(&four, p, 4);
        const int16x8_t words = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
        return vcvtq_f32_s32(vmovl_s16(vget_low_s16(words)));
    }
    static void store(float* p, F v) { vst1q_f32(p, v); }
    static void store(uint16_t* p, F v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
    static void store(Pair* p, F even, F odd) {
        const uint32x4_t low = vshrq_n_u32(rounded(even), 16), high = vandq_u32(rounded(odd), vdupq_n_u32(0xffff0000u));
        vst1q_u32(reinterpret_cast<uint32_t*>(p), vorrq_u32(low, high));
    }
    static uint32x4_t rounded(F v) {  // to 16 bits at the upper end, ties to even
        const uint32x4_t bits = vreinterpretq_u32_f32(v), last = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
        return vaddq_u32(bits, vaddq_u32(last, vdupq_n_u32(0x7fff)));
    }
    static void store_bytes(int8_t* p, I v) {
        const int16x4_t words = vqmovn_s32(v);
        const int8x8_t bytes = vqmovn_s16(vcombine_s16(words, words));
        __builtin_memcpy(p, &bytes, 4);
    }
    static I load(const Pair* p) { return load_int(p); }
    static F set(float x) { return vdupq_n_f32(x); }
    static I set(Pair x) { return four_bytes(&x); }
    static F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
    static F fma(I a, I b, F c) { return fma(even(a), even(b), fma(odd(a), odd(b), c)); }
    static F even(I pairs) { return vreinterpretq_f32_s32(vshlq_n_s32(pairs, 16)); }
    static F odd(I pairs) { return vreinterpretq_f32_s32(vandq_s32(pairs, vdupq_n_s32(int32_t(0xffff0000u)))); }
    static I round(F v) { return vcvtnq_s32_f32(v); }
    static F from_int(I v) { return vcvtq_f32_s32(v); }
    static F power_of_two(I n) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23)); }
    static I set_int(int x) { return vdupq_n_s32(x); }
    static I load_int(const void* p) { return vreinterpretq_s32_u8(vld1q_u8(static_cast<const uint8_t*>(p))); }
    static I four_bytes(const void* p) {
        int32_t x;
        __builtin_memcpy(&x, p, 4);
        return vdupq_n_s32(x);
    }
    static I low(I w) { return vandq_s32(w, vdupq_n_s32(0x0f0f0f0f)); }
    static I high(I w) { return vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(w), 4)); }
    static I dot8(I sum, I w, I x) { return dot4(sum, veorq_s32(w, vdupq_n_s32(int32_t(0x80808080u))), x); }
    static I dot4(I sum, I w, I x) { return vdotq_s32(sum, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x)); }
};

#include "kernels.h"
#include "attention.h"
#include "training.h"
#include "product.h"
#include "heads.h"

bool supported() {
#if defined(__linux__)
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
    return true;  // every Mac with an ARM processor
#endif
}

}  // namespace

const Kernels neon_kernels{"neon", Simd::TILE, supported, embed, normalize,  gelu,
                              prepare, multiply,    attend_any, cross_entropy_any, multiply_block, attend_whole, read, peak};

}  // namespace janeox
#endif
