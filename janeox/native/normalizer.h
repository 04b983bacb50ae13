// What sentencepiece does to a text before it looks for pieces: rules of the model, user-defined pieces kept as they
// are, spaces written ▁, a dummy prefix, trimming. Works on code
// points, surrogates not among them; the rules are keyed by UTF-8.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace janeox {

constexpr uint32_t kSpaceSymbol = 0x2581;  // ▁

inline int to_utf8(uint32_t c, uint8_t* bytes) {
    if (c < 0x80) {
        bytes[0] = static_cast<uint8_t>(c);
        return 1;
    }
    const int length = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = length - 1; i > 0; --i, c >>= 6) bytes[i] = static_cast<uint8_t>(0x80 | (c & 0x3F));
    bytes[0] = static_cast<uint8_t>((0xF00 >> length) | c);
    return length;
}

// False where `bytes` are no UTF-8.
inline bool from_utf8(const std::string& bytes, std::vector<uint32_t>& out) {
    out.clear();
    for (size_t i = 0; i < bytes.size();) {
        const uint8_t lead = static_cast<uint8_t>(bytes[i]);
        const size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
        if ((lead >= 0x80 && lead < 0xC2) || lead > 0xF4 || i + length > bytes.size()) return false;
        uint32_t c = length == 1 ? lead : lead & (0x7FU >> length);
        for (size_t k = 1; k < length; ++k) {
            if ((bytes[i + k] & 0xC0) != 0x80) return false;
            c = c << 6 | (bytes[i + k] & 0x3FU);
        }
        const uint32_t least = length < 3 ? 0 : length == 3 ? 0x800 : 0x10000;
        if (c < least || (c >= 0xD800 && c < 0xE000) || c > 0x10FFFF) return false;
        out.push_back(c);
        i += length;
    }
    return true;
}

// The compiled rules of a model: u32 size, that many bytes of a Darts-clone double array over UTF-8 whose values are
// offsets into the rest, NUL-terminated replacements.
//
// A unit of the array: bit 31 marks a value (bits 0–30). Otherwise bits 0–7 are the label by which it is reached, bit 8
// says that a value hangs from it, and bits 10–30 are an offset, shifted by 8 where bit 9 is set; the child by byte b
// lies at (position ^ offset ^ b), the value at (position ^ offset).
class Rules {
   public:
    enum Role : uint8_t { kRule = 1, kStarts = 2, kContinues = 4 };

    // `roles` [0x110000] learns each character's part in the rules. Throws std::invalid_argument for rules that we do
    // not follow: damaged ones, keys or replacements that are no whole characters, keys of more than 32 bytes (beyond
    // 32 matches sentencepiece stops looking).
    Rules(const uint8_t* data, size_t size, std::vector<uint8_t>& roles) {
        const size_t bytes = size < 4 ? 0 : data[0] | data[1] << 8 | data[2] << 16 | size_t{data[3]} << 24;
        if (bytes < 4 || bytes % 4 != 0 || bytes >= size - 4 || data[size - 1] != 0) {
            throw std::invalid_argument("damaged normalisation rules");
        }
        units_.resize(bytes / 4);
        for (size_t i = 0; i < units_.size(); ++i) {
            const uint8_t* b = data + 4 + i * 4;
            units_[i] = b[0] | b[1] << 8 | b[2] << 16 | uint32_t{b[3]} << 24;
        }
        replacements_.assign(reinterpret_cast<const char*>(data) + 4 + bytes, size - 4 - bytes);
        std::string key;
        check(0, key, roles);
    }

    // Characters of the longest key that `text` begins with, 0 if none; `replacement` gets its replacement.
    size_t match(const uint32_t* text, const uint32_t* end, std::vector<uint32_t>& replacement) const {
        size_t found = 0;
        uint32_t value = 0;
        size_t at = offset(units_[0]);
        for (const uint32_t* c = text; c < end; ++c) {
            uint8_t bytes[4];
            const int length = to_utf8(*c, bytes);
            for (int i = 0; i < length; ++i) {
                const uint32_t unit = units_[at ^ bytes[i]];
                if ((unit & 0x800000FF) != bytes[i]) goto done;
                at = (at ^ bytes[i]) ^ offset(unit);
                if (unit >> 8 & 1) {  // only after a character's last byte: check() saw to it
                    found = static_cast<size_t>(c - text) + 1;
                    value = units_[at] & 0x7FFFFFFF;
                }
            }
        }
    done:
        if (found > 0) from_utf8(replacements_.c_str() + value, replacement);
        return found;
    }

   private:
    static size_t offset(uint32_t unit) { return size_t{unit >> 10 & 0x1FFFFF} << ((unit & 0x200) >> 6); }

    // Walks every key, so that match() needs no checks: every position it can reach lies inside the array.
    void check(size_t node, std::string& key, std::vector<uint8_t>& roles) {
        const size_t at = node ^ offset(units_[node]);
        if ((at | 0xFF) >= units_.size() || key.size() > 32 || ++visited_ > (1 << 20)) {
            throw std::invalid_argument("damaged normalisation rules, or some of unusual length");
        }
        if (!key.empty() && (units_[node] >> 8 & 1)) {
            std::vector<uint32_t> text;
            const uint32_t value = units_[at] & 0x7FFFFFFF;
            if (!from_utf8(key, text) || value >= replacements_.size()) {
                throw std::invalid_argument("normalisation rules for parts of characters");
            }
            roles[text[0]] |= text.size() == 1 ? kRule : kStarts;
            for (size_t i = 1; i < text.size(); ++i) roles[text[i]] |= kContinues;
            if (!from_utf8(replacements_.c_str() + value, text)) {
                throw std::invalid_argument("normalisation to parts of characters");
            }
        }
        for (uint32_t byte = 0; byte < 256; ++byte) {
            if ((units_[at ^ byte] & 0x800000FF) != byte || (at ^ byte) == 0) continue;
            key.push_back(static_cast<char>(byte));
            check(at ^ byte, key, roles);
            key.pop_back();
        }
    }

    std::vector<uint32_t> units_;
    std::string replacements_;
    uint32_t visited_ = 0;
};

struct NormalizerOptions {
    bool dummy_prefix, trim, escape;
};

// Where the normaliser stands in a document.
struct Reading {
    const uint32_t* at;
    const uint32_t* end;
    bool after_space;    // spaces that follow are dropped
    size_t held_spaces;  // kept back: dropped if nothing follows
    std::vector<uint32_t> replacement;
};

class Normalizer {
   public:
    // `kept` are the user-defined pieces.
    Normalizer(std::vector<std::vector<uint32_t>> kept, const uint8_t* rules, size_t size, NormalizerOptions options)
        : options_(options), kept_(std::move(kept)) {
        if (plain() && size == 0) return;
        roles_.assign(0x110000, 0);
        if (size > 0) rules_.emplace_back(rules, size, roles_);
        for (const auto& piece : kept_) roles_[piece[0]] |= kKept;
        // By first character; of those that share it, the longest first.
        std::sort(kept_.begin(), kept_.end(), [](const auto& a, const auto& b) {
            return a[0] != b[0] ? a[0] < b[0] : a.size() > b.size();
        });
    }

    Reading open(const uint32_t* text, int64_t length) const { return {text, text + length, options_.trim, 0, {}}; }

    uint32_t space() const { return options_.escape ? kSpaceSymbol : ' '; }
    bool has_dummy_prefix() const { return options_.dummy_prefix; }

    // Calls put(code point) for the normalised text of the next characters, at least `count` of the text's own.
    template <class Put>
    void read(Reading& reading, size_t count, Put put) const {
        const uint32_t* stop = reading.at + std::min<size_t>(count, static_cast<size_t>(reading.end - reading.at));
        if (roles_.empty() && !options_.trim) {
            const uint32_t space = this->space();
            for (; reading.at < stop; ++reading.at) put(*reading.at == ' ' ? space : *reading.at);
            return;
        }
        while (reading.at < stop) step(reading, put);
    }

    // Spaces at the ends are held back until something follows.
    template <class Put>
    void pass(Reading& reading, uint32_t c, Put put) const {
        if (options_.trim && c == space()) {
            ++reading.held_spaces;
            return;
        }
        for (; reading.held_spaces > 0; --reading.held_spaces) put(space());
        put(c);
    }

   private:
    static constexpr uint8_t kKept = 8;

    bool plain() const { return kept_.empty() && !options_.trim; }

    template <class Put>
    void step(Reading& reading, Put put) const {
        const uint32_t c = *reading.at;
        const uint8_t role = roles_.empty() ? 0 : roles_[c];
        const size_t left = static_cast<size_t>(reading.end - reading.at);
        if (role & kKept) {
            if (const size_t length = kept_length(reading.at, left)) return take(reading, reading.at, length, length, put);
        }
        if (role & Rules::kRule || (role & Rules::kStarts && left > 1 && continues(reading.at[1]))) {
            if (const size_t length = rules_[0].match(reading.at, reading.end, reading.replacement)) {
                return take(reading, reading.replacement.data(), reading.replacement.size(), length, put);
            }
        }
        take(reading, &c, 1, 1, put);
    }

    bool continues(uint32_t c) const { return roles_[c] & Rules::kContinues; }

    // Passes on what `consumed` characters have become.
    template <class Put>
    void take(Reading& reading, const uint32_t* text, size_t length, size_t consumed, Put put) const {
        size_t start = 0;
        while (reading.after_space && start < length && text[start] == ' ') ++start;
        for (size_t i = start; i < length; ++i) pass(reading, text[i] == ' ' ? space() : text[i], put);
        if (start < length) reading.after_space = options_.trim && text[length - 1] == ' ';
        reading.at += consumed;
    }

    size_t kept_length(const uint32_t* text, size_t left) const {
        const auto by_first = [](const auto& piece, uint32_t c) { return piece[0] < c; };
        auto piece = std::lower_bound(kept_.begin(), kept_.end(), text[0], by_first);
        for (; piece != kept_.end() && (*piece)[0] == text[0]; ++piece) {
            if (piece->size() <= left && std::equal(piece->begin(), piece->end(), text)) return piece->size();
        }
        return 0;
    }

    NormalizerOptions options_;
    std::vector<std::vector<uint32_t>> kept_;
    std::vector<Rules> rules_;    // one, or none for identity
    std::vector<uint8_t> roles_;  // by code point; empty where there are neither rules nor pieces to keep
};

}  // namespace janeox
