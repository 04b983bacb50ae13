// The best cut of a text into pieces, found as sentencepiece finds it: positions from left to right, float32 sums in the
// same order, the first candidate kept where two are equal, and sums shifted back to 0 where they pass ±100,000. A text
// is worked through in windows that stay in the cache; all but a few characters of a window are decided by its end,
// namely those before the last position that the best paths to all open positions share.
#pragma once

#include <cfloat>
#include <cstdint>
#include <cstring>

#include "normalizer.h"
#include "vocabulary.h"

static_assert(FLT_EVAL_METHOD == 0, "sums in wider registers would break ties otherwise than sentencepiece");

namespace janeox {

constexpr float kShiftBeyond = 100000.0F;
constexpr size_t kWindow = 1024;     // characters, of 14 bytes each in the arrays of Window
constexpr size_t kBlock = 64;        // characters whose pieces are looked up together
constexpr size_t kBeyond = 3;        // characters that are looked at beyond the last one, and positions

// The best path to a position: its score, and its last piece.
struct Best {
    float score;
    uint32_t piece;  // packed
};

// Where the trie knows the two, and the three, characters at a position; 0 where it does not.
struct Match {
    uint32_t two, three;
};

// The characters that are being worked on, and the best path to each position before, between and after them.
struct Window {
    std::vector<uint32_t> points;
    std::vector<uint16_t> codes;
    std::vector<Best> best;  // kNever beyond the last position
    std::vector<uint8_t> marked;
    Match matches[kBlock];
    std::vector<uint32_t> cut;  // pieces of the decided part, last one first
    size_t size = 0;            // characters
    size_t at = 0;              // the first position whose pieces are still to be tried

    // Makes room for `count` characters after the last one, and for positions `ahead` of those.
    void reserve(size_t count, size_t ahead) {
        const size_t needed = size + count + ahead + kBeyond + 1;
        if (points.size() >= needed) return;
        points.resize(needed * 2);
        codes.resize(needed * 2);
        best.resize(needed * 2, Best{kNever, 0});
        marked.resize(needed * 2, 0);
    }
};

class Encoder {
   public:
    Encoder(Vocabulary vocabulary, Normalizer normalizer, uint32_t unknown, const int32_t* bytes)
        : vocabulary_(std::move(vocabulary)), normalizer_(std::move(normalizer)), unknown_(unknown) {
        if (bytes != nullptr) bytes_.assign(bytes, bytes + 256);
    }

    // Appends the ids of one document.
    void encode(const uint32_t* text, int64_t length, Window& window, std::vector<uint32_t>& ids) const {
        if (length == 0) return;
        const size_t longest = vocabulary_.longest();
        const size_t wanted = std::max(kWindow, 8 * longest);
        Reading reading = normalizer_.open(text, length);
        bool after_unknown = false;
        window.reserve(wanted, longest);
        window.best[0].score = 0;
        const auto put = [&](uint32_t c) {
            if (window.size + longest + kBeyond + 1 > window.points.size()) window.reserve(wanted, longest);
            window.points[window.size] = c;
            window.codes[window.size++] = vocabulary_.code(c);
        };
        if (normalizer_.has_dummy_prefix()) normalizer_.pass(reading, normalizer_.space(), put);
        size_t target = wanted;
        for (;;) {
            while (window.size < target && reading.at < reading.end) {
                normalizer_.read(reading, target - window.size, put);
            }
            const bool ended = reading.at == reading.end;
                std::fill_n(window.codes.begin() + static_cast<ptrdiff_t>(window.size), kBeyond, uint16_t{0});
            // Pieces must not end at the window's border only because the text beyond is not there yet.
            const size_t stop = ended ? window.size : window.size - std::min(window.size, longest);
            advance(window, stop);
            if (ended) {
                emit(window, window.size, after_unknown, ids);
                drop(window, window.size);
                window.best[0].score = kNever;
                window.at = 0;
                return;
            }
            const size_t decided = meeting_point(window);
            emit(window, decided, after_unknown, ids);
            drop(window, decided);
            target = std::max(wanted, 2 * window.size);
        }
    }

   private:
    // Tries all pieces that begin before `stop`.
    void advance(Window& window, size_t stop) const {
        for (; window.at < stop; window.at = std::min(stop, window.at + kBlock)) {
            const size_t count = std::min(kBlock, stop - window.at);
            look_up(window.codes.data() + window.at, count, window.matches);
            relax(window.codes.data() + window.at, count, window.matches, window.best.data() + window.at);
        }
    }

    // The pieces of two and of three characters at each of `count` positions. No branch hangs on the text here, so that
    // the memory of many positions is waited for at once.
    void look_up(const uint16_t* codes, size_t count, Match* matches) const {
        const Node* nodes = vocabulary_.nodes();
        const Node* firsts = vocabulary_.first();
        for (size_t i = 0; i < count; ++i) {
            const uint32_t two = vocabulary_.child(firsts[codes[i]], codes[i + 1]);
            matches[i] = {two, vocabulary_.child(nodes[two], codes[i + 2])};
        }
    }

    // Tries the pieces at `count` positions; from[0] is the best path to the first of them. Those to the next three
    // positions are held in registers. Longer pieces are rare.
    void relax(const uint16_t* codes, size_t count, const Match* matches, Best* from) const {
        const Node* nodes = vocabulary_.nodes();
        const Node* firsts = vocabulary_.first();
        float score = from->score;
        Best one = from[1], two = from[2], three = from[3];
        for (size_t i = 0; i < count; ++i, ++from) {
            if (score < -kShiftBeyond || score > kShiftBeyond) {
                from[1] = one, from[2] = two, from[3] = three;
                shift(from);
                score = from->score, one = from[1], two = from[2], three = from[3];
            }
            improve(one, score, firsts[codes[i]]);
            improve(two, score, nodes[matches[i].two]);
            const Node* node = nodes + matches[i].three;
            improve(three, score, *node);
            const uint16_t* code = codes + i + 3;
            for (Best* to = from + 4; node->heard >> *code % 16 & 1; ++to, ++code) {
                node = nodes + vocabulary_.child(*node, *code);
                improve(*to, score, *node);
            }
            from[1] = one;
            score = one.score;
            one = two, two = three, three = from[4];
        }
        from[1] = one, from[2] = two, from[3] = three;
    }

    static void improve(Best& best, float score, const Node& node) {
        const float candidate = node.score + score;  // a node that ends no piece scores kNever
        const uint32_t better = 0U - static_cast<uint32_t>(candidate > best.score);
        best.score = std::max(best.score, candidate);
        best.piece ^= (best.piece ^ node.piece) & better;
    }

    void shift(Best* best) const {
        const float offset = best->score;
        for (size_t i = 0; i <= vocabulary_.longest(); ++i) best[i].score -= offset;
    }

    // The last position that the best paths to all open positions (window.at and those after it) pass through.
    size_t meeting_point(Window& window) const {
        size_t open = 0;
        size_t i = std::min(window.at + vocabulary_.longest(), window.size);
        for (size_t k = window.at; k <= i; ++k) {
            window.marked[k] = window.best[k].score != kNever;
            open += window.marked[k];
        }
        for (;; --i) {
            if (!window.marked[i]) continue;
            window.marked[i] = 0;
            if (open == 1) return i;
            uint8_t& before = window.marked[i - length_of(window.best[i].piece)];
            open -= before;
            before = 1;
        }
    }

    // Appends the ids of the best path to position `end`.
    void emit(Window& window, size_t end, bool& after_unknown, std::vector<uint32_t>& ids) const {
        window.cut.clear();
        for (size_t i = end; i > 0; i -= length_of(window.cut.back())) window.cut.push_back(window.best[i].piece);
        const uint32_t* point = window.points.data();
        for (auto piece = window.cut.rbegin(); piece != window.cut.rend(); point += length_of(*piece++)) {
            const uint32_t id = id_of(*piece);
            if (id != kUnknown) {
                ids.push_back(id);
                after_unknown = false;
            } else if (!bytes_.empty()) {
                uint8_t bytes[4];
                const int length = to_utf8(*point, bytes);
                for (int i = 0; i < length; ++i) ids.push_back(static_cast<uint32_t>(bytes_[bytes[i]]));
            } else if (!after_unknown) {  // a run of unknown characters is one id
                ids.push_back(unknown_);
                after_unknown = true;
            }
        }
    }

    // Forgets the first `count` characters; the positions that become free are as new.
    void drop(Window& window, size_t count) const {
        const size_t left = window.size - count;
        std::memmove(window.points.data(), window.points.data() + count, left * sizeof(uint32_t));
        std::memmove(window.codes.data(), window.codes.data() + count, left * sizeof(uint16_t));
        std::memmove(window.best.data(), window.best.data() + count, (left + 1) * sizeof(Best));
        std::fill_n(window.best.begin() + static_cast<ptrdiff_t>(left + 1), count, Best{kNever, 0});
        window.size = left;
        window.at -= count;
    }

    Vocabulary vocabulary_;
    Normalizer normalizer_;
    uint32_t unknown_;
    std::vector<int32_t> bytes_;  // id by byte; empty without byte fallback
};

}  // namespace janeox
