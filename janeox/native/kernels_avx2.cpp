// x86 with AVX2, FMA and F16C (Intel since Haswell, AMD since Zen).
#include "engine.h"
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#pragma GCC target("avx2,fma,f16c")

namespace janeox {
namespace {

struct Simd {
    static constexpr int N = 8, REGISTERS = 16, TILE = 4, INTEGER_TILE = 4, OFFSET = 0;
    using F = __m256;
    using I = __m256i;
    static F load(const float* p) { return _mm256_loadu_ps(p); }
    static F load(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
    static F load(const int8_t* p) {
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
    }
    static void store(float* p, F v) { _mm256_storeu_ps(p, v); }
    static void store(uint16_t* p, F v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, 0)); }
    static void store(Pair* p, F even, F odd) {
        const I low = _mm256_srli_epi32(rounded(even), 16), high = _mm256_and_si256(rounded(odd), set_int(int(0xffff0000u)));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_or_si256(low, high));
    }
    static I rounded(F v) {  // to 16 bits at the upper end, ties to even
        const I bits = _mm256_castps_si256(v), last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), set_int(1));
        return _mm256_add_epi32(bits, _mm256_add_epi32(last, set_int(0x7fff)));
    }
    static void store_bytes(int8_t* p, I v) {
        const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
    }
    static I load(const Pair* p) { return load_int(p); }
    static F set(float x) { return _mm256_set1_ps(x); }
    static I set(Pair x) { return four_bytes(&x); }
    static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
    static F fma(I a, I b, F c) { return fma(even(a), even(b), fma(odd(a), odd(b), c)); }
    static F even(I pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
    static F odd(I pairs) { return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(int(0xffff0000u)))); }
    static I round(F v) { return _mm256_cvtps_epi32(v); }
    static F from_int(I v) { return _mm256_cvtepi32_ps(v); }
    static F power_of_two(I n) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23)); }
    static I set_int(int x) { return _mm256_set1_epi32(x); }
    static I load_int(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
    static I four_bytes(const void* p) {
        int x;
        __builtin_memcpy(&x, p, 4);
        return _mm256_set1_epi32(x);
    }
    static I low(I w) { return _mm256_and_si256(w, _mm256_set1_epi8(15)); }
    static I high(I w) { return _mm256_and_si256(_mm256_srli_epi16(w, 4), _mm256_set1_epi8(15)); }
    // Pairs of products must fit 16 bits: |w| * ±x does (2 * 127 * 127), (w + 128) * x would not.
    static I dot8(I sum, I w, I x) {
        const I signed_w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
        return dot4(sum, _mm256_abs_epi8(signed_w), _mm256_sign_epi8(x, signed_w));
    }
    static I dot4(I sum, I w, I x) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
    }
};

#include "kernels.h"
#include "attention.h"
#include "training.h"
#include "product.h"
#include "heads.h"

bool supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }

}  // namespace

const Kernels avx2_kernels{"avx2", Simd::TILE, supported, embed, normalize,  gelu,
                              prepare, multiply,    attend_any, cross_entropy_any, multiply_block, attend_whole, read, peak};

}  // namespace janeox
#endif
