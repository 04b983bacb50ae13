// A text as code points with the kinds of each, and what counts its distinct stretches and n-grams.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace janeox {

// corpus/characters.py, KINDS.
enum Kind : uint16_t {
    HIRAGANA = 1 << 0, JAPANESE = 1 << 1, WHITE = 1 << 2, HIRAGANA_LETTER = 1 << 3, KATAKANA_LETTER = 1 << 4,
    OTHER_LETTER = 1 << 5, KANA = 1 << 6, SENTENCE_END = 1 << 7, LINE_END = 1 << 8, SYMBOL = 1 << 9, STOP_WORD = 1 << 10,
    ALPHABETIC = 1 << 11,
};
enum WordClass { SIGN, LETTER, HIRAGANA_WORD, KATAKANA_WORD, KANJI, DIGIT, BLANK };  // words.CLASSES, from 1

inline int word_class(uint16_t kinds) { return kinds >> 12; }
inline double ratio(double part, double whole) { return whole ? part / whole : 0; }

struct Text {
    std::vector<uint32_t> codes;
    std::vector<uint16_t> kinds;

    Text(const uint8_t* bytes, int64_t size, const uint16_t* table) {
        codes.reserve(size);
        for (int64_t at = 0; at < size;) {  // valid UTF-8: Python encoded it
            uint32_t code = bytes[at];
            const int more = code < 0x80 ? 0 : code < 0xE0 ? 1 : code < 0xF0 ? 2 : 3;
            if (more) code &= 0x3F >> more;
            for (int k = 1; k <= more; ++k) code = code << 6 | (bytes[at + k] & 0x3F);
            codes.push_back(code);
            at += more + 1;
        }
        kinds.resize(codes.size());
        for (size_t k = 0; k < codes.size(); ++k)
            kinds[k] = table[codes[k] < 1 << 16 ? codes[k] : (1 << 16) + (codes[k] >> 16)];
    }
    int64_t size() const { return static_cast<int64_t>(codes.size()); }
};

struct Span {
    int64_t start, end;
    int64_t length() const { return end - start; }
};

// Numbers the distinct stretches of a text in the order in which they come. Exact: equal hashes are compared.
class Spans {
  public:
    explicit Spans(const std::vector<uint32_t>& codes) : codes_(codes), prefix_(codes.size() + 1), powers_(codes.size() + 1, 1) {
        for (size_t k = 0; k < codes.size(); ++k) {
            prefix_[k + 1] = prefix_[k] * BASE + codes[k] + 1;
            powers_[k + 1] = powers_[k] * BASE;
        }
    }
    void clear(int64_t expected) {
        size_t slots = 16;
        while (slots < 2 * static_cast<size_t>(expected)) slots *= 2;
        slots_.assign(slots, 0);
        distinct_.clear();
    }
    // The number of this stretch; one equal to `distinct()` as it was before is new.
    int64_t number(Span span) {
        uint64_t hash = prefix_[span.end] - prefix_[span.start] * powers_[span.length()];
        hash ^= hash >> 29;
        hash *= 0xBF58476D1CE4E5B9ull;
        hash ^= hash >> 32;
        for (size_t slot = hash & (slots_.size() - 1);; slot = (slot + 1) & (slots_.size() - 1)) {
            if (!slots_[slot]) {
                distinct_.push_back({span, hash});
                slots_[slot] = static_cast<uint32_t>(distinct_.size());
                return static_cast<int64_t>(distinct_.size()) - 1;
            }
            const Entry& other = distinct_[slots_[slot] - 1];
            if (other.hash == hash && other.span.length() == span.length() &&
                !std::memcmp(&codes_[other.span.start], &codes_[span.start], 4 * span.length()))
                return slots_[slot] - 1;
        }
    }
    int64_t distinct() const { return static_cast<int64_t>(distinct_.size()); }

  private:
    static constexpr uint64_t BASE = 0x9E3779B97F4A7C15ull;
    struct Entry {
        Span span;
        uint64_t hash;
    };
    const std::vector<uint32_t>& codes_;
    std::vector<uint64_t> prefix_, powers_;
    std::vector<uint32_t> slots_;
    std::vector<Entry> distinct_;
};

// Ids of the n-grams of a row of `letters`, n growing by one a step. Exact: an n-gram is the pair of the one shorter by a
// letter and the letter behind it. One that comes once contains no longer one that comes twice, so it leaves the table.
class Ngrams {
  public:
    static constexpr uint32_t ONCE = 0xFFFFFFFF;
    explicit Ngrams(std::vector<uint32_t> letters) : letters_(std::move(letters)), ids_(letters_) {}

    void lengthen() {
        ++n_;
        total = std::max<int64_t>(0, static_cast<int64_t>(letters_.size()) - n_ + 1);
        size_t candidates = 0, slots = 16;
        for (int64_t k = 0; k < total; ++k) candidates += ids_[k] != ONCE && ids_[k + 1] != ONCE;
        while (slots < 2 * candidates) slots *= 2;
        std::vector<uint64_t> keys(slots);
        std::vector<uint32_t> numbers(slots);
        counts.clear();
        first.clear();
        for (int64_t k = 0; k < total; ++k) {
            if (ids_[k] == ONCE || ids_[k + 1] == ONCE) {
                ids_[k] = ONCE;
                continue;
            }
            const uint64_t key = (static_cast<uint64_t>(ids_[k]) << 32 | letters_[k + n_ - 1]) + 1;
            size_t slot = key * 0x9E3779B97F4A7C15ull >> 20 & (slots - 1);
            while (keys[slot] && keys[slot] != key) slot = (slot + 1) & (slots - 1);
            if (!keys[slot]) {
                keys[slot] = key;
                numbers[slot] = static_cast<uint32_t>(counts.size());
                counts.push_back(0);
                first.push_back(k);
            }
            ids_[k] = numbers[slot];
            ++counts[ids_[k]];
        }
        repeated = distinct = 0;
        for (int64_t k = 0; k < total; ++k) {
            if (ids_[k] != ONCE && counts[ids_[k]] == 1) ids_[k] = ONCE;
            distinct += ids_[k] == ONCE;
        }
        for (int64_t count : counts) repeated += count > 1;
        distinct += repeated;
    }
    // How often the most frequent one comes, and where the first of those starts.
    int64_t most(int64_t& start) const {
        int64_t best = total > 0;
        start = 0;
        for (size_t id = 0; id < counts.size(); ++id)
            if (counts[id] > best) best = counts[id], start = first[id];
        return best;
    }
    std::vector<int64_t> counts, first;  // of those in the table, by id
    int64_t total = 0, distinct = 0, repeated = 0;

  private:
    std::vector<uint32_t> letters_, ids_;
    int64_t n_ = 1;
};

}  // namespace janeox
