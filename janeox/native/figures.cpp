// Figures of a text that cleaning rules compare with thresholds; corpus/measures.py defines each, and the order here is
// that of its tables LINES, NGRAMS and WORDS.

#include <initializer_list>

#include "text.h"

using namespace janeox;

namespace {

// Shares of parts, and of their characters, that say again what an earlier part said.
void repeats(Spans& spans, const std::vector<Span>& parts, double* out) {
    spans.clear(static_cast<int64_t>(parts.size()));
    int64_t again = 0, chars_again = 0, chars = 0;
    for (const Span& part : parts) {
        const int64_t known = spans.distinct();
        chars += part.length();
        if (spans.number(part) < known) {
            ++again;
            chars_again += part.length();
        }
    }
    out[0] = ratio(again, parts.size());
    out[1] = ratio(chars_again, chars);
}

bool ends_with(const Text& text, Span span, std::initializer_list<uint32_t> ends) {
    while (span.length() && text.kinds[span.end - 1] & WHITE) --span.end;
    return span.length() && std::find(ends.begin(), ends.end(), text.codes[span.end - 1]) != ends.end();
}

bool trails_off(const Text& text, Span line) {
    while (line.length() && text.kinds[line.end - 1] & WHITE) --line.end;
    const uint32_t* end = text.codes.data() + line.end;
    return line.length() && (end[-1] == 0x2026 || (line.length() >= 3 && end[-1] == '.' && end[-2] == '.' && end[-3] == '.'));
}

std::vector<Span> lines_of(const Text& text) {
    std::vector<Span> lines;
    int64_t start = 0;
    for (int64_t k = 0; k <= text.size(); ++k)
        if (k == text.size() || text.codes[k] == '\n') lines.push_back({start, k}), start = k + 1;
    return lines;
}

std::vector<Span> sentences_of(const Text& text, const std::vector<Span>& lines) {
    std::vector<Span> sentences;
    for (const Span& line : lines)
        for (int64_t at = line.start; at < line.end;) {
            int64_t end = at;
            while (end < line.end && !(text.kinds[end] & SENTENCE_END)) ++end;
            if (end == at) ++at;  // an ender without a sentence is none
            else {
                end += end < line.end;
                sentences.push_back({at, end});
                at = end;
            }
        }
    return sentences;
}

// words.py. `functions` [count] are its function words, 7 bits a character, sorted.
std::vector<Span> words_of(const Text& text, const uint64_t* functions, int64_t count) {
    std::vector<Span> words;
    const auto function_word = [&](int64_t at) -> int64_t {  // length of the longest that begins here, or 0
        uint64_t value = 0;
        int64_t longest = 0;
        for (int64_t k = 0; k < 8 && at + k < text.size() && word_class(text.kinds[at + k]) == HIRAGANA_WORD; ++k) {
            value = value << 7 | (text.codes[at + k] - 0x3040);
            if (std::binary_search(functions, functions + count, value)) longest = k + 1;
        }
        return longest;
    };
    for (int64_t at = 0; at < text.size();) {
        const int kind = word_class(text.kinds[at]);
        int64_t end = at + 1;
        if (kind == HIRAGANA_WORD) {
            const int64_t length = function_word(at);
            if (length) end = at + length;
            else
                while (end < text.size() && word_class(text.kinds[end]) == kind && !function_word(end)) ++end;
        } else if (kind == KANJI) {
            end += end < text.size() && word_class(text.kinds[end]) == kind;
        } else if (kind != SIGN) {
            while (end < text.size() && word_class(text.kinds[end]) == kind) ++end;
        }
        if (kind != BLANK) words.push_back({at, end});
        at = end;
    }
    return words;
}

}  // namespace

extern "C" {

// Each takes valid UTF-8, the table of characters.py and the function words, and writes its group of figures to `out`.
void janeox_lines_figures(const uint8_t* bytes, int64_t size, const uint16_t* table, const uint64_t*, int64_t, double* out) {
    const Text text(bytes, size, table);
    const std::vector<Span> lines = lines_of(text), sentences = sentences_of(text, lines);
    int64_t white = 0, hiragana = 0, japanese = 0, letters[3] = {}, kana_at_start = 0, stops = 0;
    for (int64_t k = 0; k < text.size(); ++k) {
        const uint16_t kinds = text.kinds[k];
        white += (kinds & WHITE) != 0;
        hiragana += (kinds & HIRAGANA) != 0;
        japanese += (kinds & (HIRAGANA | JAPANESE)) != 0;
        letters[0] += (kinds & HIRAGANA_LETTER) != 0;
        letters[1] += (kinds & KATAKANA_LETTER) != 0;
        letters[2] += (kinds & OTHER_LETTER) != 0;
        kana_at_start += k < 50 && kinds & KANA;
        stops += text.codes[k] == 0x3002;
    }
    const int64_t solid = text.size() - white, all_letters = letters[0] + letters[1] + letters[2];
    *out++ = static_cast<double>(text.size());
    *out++ = ratio(japanese, solid);
    *out++ = ratio(hiragana, solid);
    *out++ = static_cast<double>(all_letters);
    *out++ = ratio(all_letters, text.size());
    *out++ = ratio(letters[0], all_letters);
    *out++ = ratio(letters[1], all_letters);
    *out++ = static_cast<double>(kana_at_start);
    *out++ = ratio(stops, text.size());
    Spans spans(text.codes);
    repeats(spans, lines, out);
    repeats(spans, sentences, out + 2);
    out += 4;
    int64_t sentence_chars = 0, longest = 0, trailing = 0;
    for (const Span& sentence : sentences) {
        sentence_chars += sentence.length();
        longest = std::max(longest, sentence.length());
        trailing += ends_with(text, sentence, {0x30FB, 0x2026});
    }
    *out++ = ratio(sentence_chars, sentences.size());
    *out++ = static_cast<double>(longest);
    *out++ = ratio(trailing, sentences.size());
    int64_t filled = 0, punctuated = 0, ellipses = 0, bullets = 0, judged = 0, judged_japanese = 0;
    for (const Span& line : lines) {
        int64_t first = line.start, alphabetic = 0, kana = 0, kanji = 0;
        while (first < line.end && text.kinds[first] & WHITE) ++first;
        if (first == line.end) continue;
        ++filled;
        punctuated += (text.kinds[line.end - 1] & LINE_END) != 0;
        ellipses += trails_off(text, line);
        bullets += text.codes[first] == '-' || text.codes[first] == 0x2022;
        for (int64_t k = first; k < line.end; ++k) {
            alphabetic += (text.kinds[k] & ALPHABETIC) != 0;
            kana += (text.kinds[k] & KANA) != 0;
            kanji += word_class(text.kinds[k]) == KANJI;
        }
        if (kana || kanji < alphabetic || alphabetic > 20) {
            judged += alphabetic;
            judged_japanese += kana * 20 >= alphabetic ? alphabetic : 0;
        }
    }
    *out++ = ratio(punctuated, filled);
    *out++ = ratio(ellipses, filled);
    *out++ = ratio(bullets, filled);
    *out++ = ratio(judged_japanese, judged);
}

void janeox_ngrams_figures(const uint8_t* bytes, int64_t size, const uint16_t* table, const uint64_t*, int64_t, double* out) {
    Ngrams ngrams(Text(bytes, size, table).codes);
    for (int n = 2; n <= 10; ++n) {
        int64_t start;
        ngrams.lengthen();
        *out++ = n <= 4 ? ratio(ngrams.most(start), ngrams.total) : ratio(ngrams.repeated, ngrams.distinct);
    }
}

void janeox_words_figures(const uint8_t* bytes, int64_t size, const uint16_t* table, const uint64_t* functions, int64_t count,
                          double* out) {
    const Text text(bytes, size, table);
    const std::vector<Span> words = words_of(text, functions, count);
    int64_t real = 0, chars = 0, alphabetic = 0, breaks = 0, hashes = 0, ellipses = 0;
    std::vector<uint32_t> joined, stops;  // the words without what separates them; their single-character stop words
    std::vector<int64_t> starts;
    for (const Span& word : words) {
        bool letter = false, symbols = true;
        for (int64_t k = word.start; k < word.end; ++k) {
            letter |= (text.kinds[k] & ALPHABETIC) != 0;
            symbols &= (text.kinds[k] & SYMBOL) != 0;
        }
        alphabetic += letter;
        real += !symbols;
        chars += symbols ? 0 : word.length();
        if (word.length() == 1 && text.kinds[word.start] & STOP_WORD) stops.push_back(text.codes[word.start]);
        starts.push_back(static_cast<int64_t>(joined.size()));
        joined.insert(joined.end(), text.codes.begin() + word.start, text.codes.begin() + word.end);
    }
    starts.push_back(static_cast<int64_t>(joined.size()));
    std::sort(stops.begin(), stops.end());
    for (int64_t k = 0; k < text.size(); ++k) {
        breaks += text.codes[k] == '\n';
        hashes += text.codes[k] == '#';
        ellipses += text.codes[k] == 0x2026;
        if (k + 2 < text.size() && text.codes[k] == '.' && text.codes[k + 1] == '.' && text.codes[k + 2] == '.') ++ellipses, k += 2;
    }
    const int64_t number = static_cast<int64_t>(words.size());
    *out++ = static_cast<double>(real);
    *out++ = ratio(chars, real);
    *out++ = ratio(alphabetic, number);
    *out++ = static_cast<double>(std::unique(stops.begin(), stops.end()) - stops.begin());
    *out++ = ratio(breaks, number);
    *out++ = ratio(hashes, number);
    *out++ = ratio(ellipses, number);
    Spans spans(joined);
    spans.clear(number);
    std::vector<uint32_t> ids;
    for (int64_t k = 0; k < number; ++k) ids.push_back(static_cast<uint32_t>(spans.number({starts[k], starts[k + 1]})));
    Ngrams ngrams(std::move(ids));
    for (int n = 2; n <= 4; ++n) {
        int64_t start;
        ngrams.lengthen();
        const int64_t most = ngrams.most(start);
        *out++ = most ? ratio((starts[start + n] - starts[start] + n - 1) * most, text.size()) : 0;
    }
    for (int n = 5; n <= 10; ++n) {
        spans.clear(number);
        int64_t again = 0;
        for (int64_t k = 0; k + n <= number;) {
            const int64_t known = spans.distinct();
            const bool new_one = spans.number({starts[k], starts[k + n]}) == known;
            if (!new_one) again += starts[k + n] - starts[k];
            k += new_one ? 1 : n;
        }
        *out++ = ratio(again, text.size());
    }
}

}  // extern "C"
