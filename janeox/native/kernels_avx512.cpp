// x86 with AVX-512, VNNI included (Intel since Ice Lake, AMD since Zen 4).
#include "engine.h"
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vnni,avx512dq,f16c,fma")
#ifdef BFLOAT16_PRODUCTS  // kernels_avx512bf16.cpp
#pragma GCC target("avx512bf16")
#endif

namespace janeox {
namespace {

struct Simd {
    static constexpr int N = 16, REGISTERS = 32, TILE = 12, INTEGER_TILE = 6, OFFSET = -128;  // OFFSET: bytes are multiplied as w + 128
    using F = __m512;
    using I = __m512i;
    static F load(const float* p) { return _mm512_loadu_ps(p); }
    static F load(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
    static F load(const int8_t* p) {
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
    }
    static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
    static void store(uint16_t* p, F v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, 0)); }
    static void store(Pair* p, F even, F odd) {
        const I low = _mm512_srli_epi32(rounded(even), 16), high = _mm512_and_si512(rounded(odd), set_int(int(0xffff0000u)));
        _mm512_storeu_si512(p, _mm512_or_si512(low, high));
    }
    static I rounded(F v) {  // to 16 bits at the upper end, ties to even
        const I bits = _mm512_castps_si512(v), last = _mm512_and_si512(_mm512_srli_epi32(bits, 16), set_int(1));
        return _mm512_add_epi32(bits, _mm512_add_epi32(last, set_int(0x7fff)));
    }
    static void store_bytes(int8_t* p, I v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v)); }
    static I load(const Pair* p) { return load_int(p); }
    static F set(float x) { return _mm512_set1_ps(x); }
    static I set(Pair x) { return four_bytes(&x); }
    static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
#ifdef BFLOAT16_PRODUCTS
    static F fma(I a, I b, F c) {
        asm("vdpbf16ps %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
        return c;
    }
#else
    static F fma(I a, I b, F c) { return fma(even(a), even(b), fma(odd(a), odd(b), c)); }
#endif
    static F even(I pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
    static F odd(I pairs) { return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(int(0xffff0000u)))); }
    static I round(F v) { return _mm512_cvtps_epi32(v); }
    static F from_int(I v) { return _mm512_cvtepi32_ps(v); }
    static F power_of_two(I n) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23)); }
    static I set_int(int x) { return _mm512_set1_epi32(x); }
    static I load_int(const void* p) { return _mm512_loadu_si512(p); }
    static I four_bytes(const void* p) {
        int x;
        __builtin_memcpy(&x, p, 4);
        return _mm512_set1_epi32(x);
    }
    // 16 rows of 16 numbers, `stride` apart → their columns, `wide` apart.
    static void transpose(const uint32_t* from, size_t stride, uint32_t* to, size_t wide) {
        I a[16], b[16];
        for (int i = 0; i < 16; i++) a[i] = load_int(from + i * stride);
        for (int i = 0; i < 16; i += 2) {
            b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
            b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
        }
        for (int i = 0; i < 16; i += 4) {
            for (int j = 0; j < 2; j++) {
                a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]);
                a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
            }
        }
        for (int j = 0; j < 4; j++) {  // a[4 g + j] has columns j, 4 + j, 8 + j and 12 + j of rows 4 g … 4 g + 3
            const I c = _mm512_shuffle_i32x4(a[j], a[4 + j], 0x88), d = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0x88);
            const I e = _mm512_shuffle_i32x4(a[j], a[4 + j], 0xdd), f = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0xdd);
            _mm512_storeu_si512(to + j * wide, _mm512_shuffle_i32x4(c, d, 0x88));
            _mm512_storeu_si512(to + (4 + j) * wide, _mm512_shuffle_i32x4(e, f, 0x88));
            _mm512_storeu_si512(to + (8 + j) * wide, _mm512_shuffle_i32x4(c, d, 0xdd));
            _mm512_storeu_si512(to + (12 + j) * wide, _mm512_shuffle_i32x4(e, f, 0xdd));
        }
    }
    static I low(I w) { return _mm512_and_si512(w, _mm512_set1_epi8(15)); }
    static I high(I w) { return _mm512_and_si512(_mm512_srli_epi16(w, 4), _mm512_set1_epi8(15)); }
    // Not the intrinsic: gcc 12 copies every sum to another register and back around it.
    static I dot8(I sum, I w, I x) {
        asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
        return sum;
    }
    static I dot4(I sum, I w, I x) { return dot8(sum, w, x); }
};

#include "kernels.h"
#include "attention.h"
#include "training.h"
#include "product.h"
#include "heads.h"

bool supported() {
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq")
#ifdef BFLOAT16_PRODUCTS
           && __builtin_cpu_supports("avx512bf16")
#endif
        ;
}

}  // namespace

#ifdef BFLOAT16_PRODUCTS
const Kernels avx512bf16_kernels{"avx512bf16",
#else
const Kernels avx512_kernels{"avx512",
#endif
                             Simd::TILE, supported, embed,      normalize, gelu,
                             prepare,    multiply,  attend_any, cross_entropy_any, multiply_block, attend_whole, read, peak};

}  // namespace janeox
#endif
