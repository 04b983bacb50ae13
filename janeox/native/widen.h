// UTF-8 → characters of two or four bytes, checked, up to where a JSON string ends or to the end.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define JANEOX_WIDE __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi,bmi2,lzcnt,popcnt")))
#endif

namespace janeox {
namespace {

constexpr size_t kSlack = 64;  // characters for which there must be room after the last

// Whether this machine has the vector instructions of `plain_wide`.
inline bool has_wide() {
#ifdef JANEOX_WIDE
    return __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#else
    return false;
#endif
}
bool wide = has_wide();

// Both kinds of `plain` write the characters from `p` on to `out`, up to a quote, backslash or control character if they
// stand in JSON, else up to `end`, and return where they stopped. They return null for what is not UTF-8 and for what a
// Char cannot hold: uint16_t is for the usual text, uint32_t for all.

template <class Char, bool in_json>
const uint8_t* plain_anywhere(const uint8_t* p, const uint8_t* end, Char*& out) {
    Char* to = out;
    const auto more = [&p](int k) { return (p[k] & 0xC0) == 0x80; };
    while (p < end) {
        const uint32_t c = *p;
        if (c < 0x80) {
            if (in_json && (c == '"' || c == '\\' || c < 0x20)) break;
            *to++ = static_cast<Char>(c);
            p += 1;
        } else if (c >= 0xE0 && c < 0xF0) {
            if (end - p < 3 || !more(1) || !more(2)) return nullptr;
            const uint32_t code = (c & 0xF) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
            if (code < 0x800 || (code & 0xF800) == 0xD800) return nullptr;
            *to++ = static_cast<Char>(code);
            p += 3;
        } else if (c < 0xE0) {
            if (c < 0xC2 || end - p < 2 || !more(1)) return nullptr;
            *to++ = static_cast<Char>((c & 0x1F) << 6 | (p[1] & 0x3Fu));
            p += 2;
        } else {
            if (sizeof(Char) == 2 || end - p < 4 || !more(1) || !more(2) || !more(3)) return nullptr;
            const uint32_t code = (c & 0xF) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
            if (code < 0x10000 || code > 0x10FFFF) return nullptr;
            *to++ = static_cast<Char>(code);
            p += 4;
        }
    }
    out = to;
    return p;
}

#ifdef JANEOX_WIDE
JANEOX_WIDE inline uint64_t equal(__m512i bytes, char c) { return _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(c)); }
JANEOX_WIDE inline uint64_t from(__m512i bytes, int least) {
    return _mm512_cmpge_epu8_mask(bytes, _mm512_set1_epi8(static_cast<char>(least)));
}
JANEOX_WIDE inline __m512i all(int value) { return _mm512_set1_epi16(static_cast<int16_t>(value)); }

template <class Function>
constexpr std::array<uint8_t, 64> numbers(Function function) {
    std::array<uint8_t, 64> made{};
    for (int k = 0; k < 64; ++k) made[static_cast<size_t>(k)] = static_cast<uint8_t>(function(k));
    return made;
}

// The characters that begin in 61 bytes, which end within 64: the places where they begin are brought together, then 32
// at a time are made of the three bytes at their places.
template <bool in_json>
JANEOX_WIDE const uint8_t* plain_wide(const uint8_t* p, const uint8_t* end, uint16_t*& out) {
    alignas(64) static constexpr auto kPlaces = numbers([](int k) { return k; });
    alignas(64) static constexpr auto kLanes = numbers([](int k) { return k / 2; });
    const __m512i places = _mm512_load_si512(kPlaces.data()), lanes = _mm512_load_si512(kLanes.data());
    for (uint64_t due = 0;;) {  // bytes of this round that belong to characters of the last one
        const ptrdiff_t left = end - p;
        const uint64_t here = _bzhi_u64(~uint64_t{0}, static_cast<uint32_t>(std::min<ptrdiff_t>(64, left)));
        const __m512i bytes = _mm512_maskz_loadu_epi8(here, p);
        const uint64_t stop = in_json ? here & (equal(bytes, '"') | equal(bytes, '\\') | ~from(bytes, 0x20)) : 0;
        const uint64_t take = stop ? _blsmsk_u64(stop) >> 1 : _bzhi_u64(here, 61);
        const bool last = stop || left <= 61;
        const uint64_t two = take & from(bytes, 0xC0), three = take & from(bytes, 0xE0);  // bytes at least, for a character
        const uint64_t more = take & from(bytes, 0x80) & ~two;
        due |= two << 1 | three << 2;
        if ((due & take) != more || (last && due & ~take) || take & from(bytes, 0xF0)) return nullptr;
        due >>= 61;
        const __m512i begins = _mm512_maskz_compress_epi8(take & ~more, places);
        const int count = static_cast<int>(_mm_popcnt_u64(take & ~more));
        for (int k = 0; k < count; k += 32) {
            const __m512i lane = _mm512_add_epi8(lanes, _mm512_set1_epi8(static_cast<char>(k)));
            const __m512i at = _mm512_add_epi8(_mm512_permutexvar_epi8(lane, begins), all(0x0001));
            const __m512i head = _mm512_permutexvar_epi8(at, bytes);  // the first byte above the second
            const __m512i third = _mm512_permutexvar_epi8(_mm512_add_epi8(at, all(0x0001)), bytes);  // below the first
            const __m512i bits = _mm512_maddubs_epi16(_mm512_and_si512(head, all(0x3F3F)), all(0x4001));  // six of each
            const __mmask32 is_two = _mm512_cmpge_epu16_mask(head, all(0xC000));
            const __mmask32 is_three = _mm512_cmpge_epu16_mask(head, all(0xE000));
            __m512i code = _mm512_mask_mov_epi16(_mm512_srli_epi16(head, 8), is_two, bits);
            code = _mm512_mask_mov_epi16(code, is_three, _mm512_or_si512(_mm512_slli_epi16(bits, 6), _mm512_and_si512(third, all(0x3F))));
            const __m512i high = _mm512_and_si512(code, all(0xF800));
            const __mmask32 wrong = _mm512_mask_cmplt_epu16_mask(is_two, code, all(0x80)) |
                                    _mm512_mask_cmpeq_epi16_mask(is_three, high, _mm512_setzero_si512()) |
                                    _mm512_mask_cmpeq_epi16_mask(is_three, high, all(0xD800));
            if (wrong) return nullptr;
            _mm512_storeu_si512(out + k, code);
        }
        out += count;
        if (last) return p + (stop ? static_cast<ptrdiff_t>(_tzcnt_u64(stop)) : left);
        p += 61;
    }
}

// Writes what \uXXXX after \uXXXX stands for, ten at a time, up to something else or half a surrogate pair.
JANEOX_WIDE inline void escapes_wide(const uint8_t*& p, const uint8_t* end, uint16_t*& out) {
    constexpr uint64_t kEverySixth = 0x41041041041041;
    alignas(64) static constexpr auto kDigits = numbers([](int k) { return k < 40 ? k / 4 * 6 + 2 + k % 4 : 0; });
    for (;;) {
        const uint64_t here = _bzhi_u64(~uint64_t{0}, static_cast<uint32_t>(std::min<ptrdiff_t>(64, end - p)));
        const __m512i bytes = _mm512_maskz_loadu_epi8(here, p);
        const uint64_t begun = _pext_u64(equal(bytes, '\\') & equal(bytes, 'u') >> 1, kEverySixth);
        const __m512i digits = _mm512_permutexvar_epi8(_mm512_load_si512(kDigits.data()), bytes);
        const __m512i decimal = _mm512_sub_epi8(digits, _mm512_set1_epi8('0'));
        const __m512i letter = _mm512_sub_epi8(_mm512_or_si512(digits, all(0x2020)), _mm512_set1_epi8('a'));
        const __mmask64 is_decimal = ~from(decimal, 10), is_letter = ~from(letter, 6);
        const __m512i values = _mm512_mask_add_epi8(decimal, is_letter, letter, _mm512_set1_epi8(10));
        const __m512i pairs = _mm512_maddubs_epi16(values, all(0x0110));
        const __m512i codes = _mm512_madd_epi16(pairs, _mm512_set1_epi32(0x00010100));
        const __m512i high = _mm512_and_si512(codes, _mm512_set1_epi32(0xF800));
        const uint64_t wrong = _mm512_cmpneq_epi32_mask(_mm512_maskz_set1_epi8(is_decimal | is_letter, 1), _mm512_set1_epi8(1)) |
                                _mm512_cmpeq_epi32_mask(high, _mm512_set1_epi32(0xD800));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi32_epi16(codes));
        const uint64_t good = begun & ~wrong;
        if (good != 0x3FF) {
            out += _tzcnt_u64(~good);
            p += 6 * _tzcnt_u64(~good);
            return;
        }
        out += 10;  // constants, so that the next round need not wait for this one
        p += 60;
    }
}
#endif

template <class Char, bool in_json>
const uint8_t* plain(const uint8_t* p, const uint8_t* end, Char*& out) {
#ifdef JANEOX_WIDE
    if constexpr (sizeof(Char) == 2)
        if (wide) return plain_wide<in_json>(p, end, out);
#endif
    return plain_anywhere<Char, in_json>(p, end, out);
}

// What can be done of a run of \uXXXX at once.
template <class Char>
void escapes([[maybe_unused]] const uint8_t*& p, [[maybe_unused]] const uint8_t* end, [[maybe_unused]] Char*& out) {
#ifdef JANEOX_WIDE
    if constexpr (sizeof(Char) == 2)
        if (wide && end - p > 1 && p[1] == 'u') escapes_wide(p, end, out);
#endif
}

}  // namespace
}  // namespace janeox
