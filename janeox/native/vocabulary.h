// The pieces of a unigram model as a trie over characters, laid out as a double array.
//
// Characters that occur in pieces get codes 1, 2, …, the likeliest first; every other character has code 0. A node with
// children owns a base; its child by code c lies at nodes[base + c] and is labelled c. One node fills a
// quarter of a cache line, so that following a character and learning score and id costs one memory access.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

namespace janeox {

constexpr uint32_t kCodePoints = 0x110000;
constexpr uint32_t kUnknown = 0xFFFFFF;  // the id of a character that no piece spells
constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr float kUnknownPenalty = 10.0F;  // sentencepiece's: below the lowest score of a normal piece

// An id and the number of characters that it covers, in one word.
constexpr uint32_t packed(uint32_t id, uint32_t length) { return id | length << 24; }
constexpr uint32_t id_of(uint32_t packed) { return packed & 0xFFFFFF; }
constexpr uint32_t length_of(uint32_t packed) { return packed >> 24; }

struct Piece {
    std::vector<uint32_t> text;  // code points; codes once the vocabulary has numbered them
    float score;
    uint32_t id;
};

struct Node {
    uint32_t base;   // of the children; 0 where there are none
    uint16_t code;   // by which this node is reached: no two bases are equal, so it tells whose child it is
    uint16_t heard;  // bit (code % 16) is set for each child's code: most misses need no look at the array
    float score;     // kNever where no piece ends here
    uint32_t piece;  // packed
};

class Vocabulary {
   public:
    // `lowest` is the lowest score of a normal piece. Throws std::length_error beyond what a packed word holds.
    Vocabulary(std::vector<Piece> pieces, float lowest) : codes_(kCodePoints, 0) {
        number_characters(pieces);
        std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.text < b.text; });
        place(grow(pieces));
        // What follows a character alone: its own piece, or the unknown one.
        const Node unknown{0, 0, 0, lowest - kUnknownPenalty, packed(kUnknown, 1)};
        first_.assign(characters_ + 1, unknown);
        for (uint32_t code = 1; code <= characters_; ++code) {
            const Node& node = nodes_[root_base_ + code];
            if (node.code != code) continue;  // no piece begins with this character
            first_[code].base = node.base;
            first_[code].heard = node.heard;
            if (node.score != kNever) {
                first_[code].score = node.score;
                first_[code].piece = node.piece;
            }
        }
    }

    uint16_t code(uint32_t code_point) const { return codes_[code_point]; }
    const Node* first() const { return first_.data(); }  // by code
    const Node* nodes() const { return nodes_.data(); }
    // Where `node`'s child by `code` lies in nodes(); 0, a node without a piece or children, if there is none.
    uint32_t child(const Node& node, uint16_t code) const {
        const uint32_t at = (node.base + code) & (0U - (node.heard >> code % 16 & 1U));
        return at & (0U - static_cast<uint32_t>(nodes_[at].code == code));
    }
    uint32_t longest() const { return longest_; }  // characters of the longest piece

   private:
    struct Branch {
        uint16_t code;
        float score;
        uint32_t piece;
        uint32_t children, count;  // children lie side by side, by ascending code
    };

    void number_characters(std::vector<Piece>& pieces) {
        std::vector<float> best(kCodePoints, kNever);  // score by code point
        std::vector<uint32_t> used;
        for (const Piece& piece : pieces) {
            if (piece.text.empty() || piece.text.size() > 255 || piece.id >= kUnknown) {
                throw std::length_error("a piece is empty or longer than 255 characters");
            }
            longest_ = std::max(longest_, static_cast<uint32_t>(piece.text.size()));
            for (uint32_t c : piece.text) {
                if (best[c] == kNever) used.push_back(c);
                best[c] = std::max(best[c], piece.score);
            }
        }
        if (used.size() > 0xFFFF) throw std::length_error("more than 65,535 characters in the pieces");
        std::sort(used.begin(), used.end(), [&](uint32_t a, uint32_t b) {
            return best[a] != best[b] ? best[a] > best[b] : a < b;
        });
        for (uint32_t code_point : used) codes_[code_point] = static_cast<uint16_t>(++characters_);
        for (Piece& piece : pieces) {
            for (uint32_t& c : piece.text) c = codes_[c];
        }
    }

    // The trie of the sorted pieces, breadth first; the root comes first.
    static std::vector<Branch> grow(const std::vector<Piece>& pieces) {
        struct Range {
            size_t start, stop, depth;
        };
        std::vector<Branch> branches{{0, kNever, 0, 0, 0}};
        std::vector<Range> ranges{{0, pieces.size(), 0}};
        for (size_t at = 0; at < branches.size(); ++at) {
            auto [start, stop, depth] = ranges[at];
            if (start < stop && pieces[start].text.size() == depth) {  // a prefix sorts before what it begins
                branches[at].score = pieces[start].score;
                branches[at].piece = packed(pieces[start].id, static_cast<uint32_t>(depth));
                while (start < stop && pieces[start].text.size() == depth) ++start;
            }
            branches[at].children = static_cast<uint32_t>(branches.size());
            while (start < stop) {
                const uint32_t code = pieces[start].text[depth];
                size_t end = start;
                while (end < stop && pieces[end].text[depth] == code) ++end;
                branches.push_back({static_cast<uint16_t>(code), kNever, 0, 0, 0});
                ranges.push_back({start, end, depth + 1});
                start = end;
            }
            branches[at].count = static_cast<uint32_t>(branches.size()) - branches[at].children;
        }
        return branches;
    }

    // Finds every branch a base at which its children's slots are free, the widest branches first.
    void place(const std::vector<Branch>& branches) {
        std::vector<uint32_t> order;
        for (uint32_t i = 0; i < branches.size(); ++i) {
            if (branches[i].count > 0) order.push_back(i);
        }
        std::stable_sort(order.begin(), order.end(),
                         [&](uint32_t a, uint32_t b) { return branches[a].count > branches[b].count; });
        std::vector<uint32_t> bases(branches.size(), 0);
        std::vector<uint32_t> next{0};  // free slots point at themselves, others towards the next free one
        std::vector<bool> is_base{true};  // 0 means "no children"
        const auto reach = [&](size_t size) {
            if (size <= next.size()) return;
            for (size_t i = next.size(); i < size + 4096; ++i) next.push_back(static_cast<uint32_t>(i));
            is_base.resize(next.size(), false);
        };
        const auto next_free = [&](uint32_t slot) {
            reach(slot + 1);
            uint32_t free = slot;
            while (next[free] != free) {
                free = next[free];
                reach(free + 1);
            }
            while (next[slot] != free) slot = std::exchange(next[slot], free);
            return free;
        };
        uint32_t last_base = 0;
        for (uint32_t parent : order) {
            const Branch* children = &branches[branches[parent].children];
            const uint32_t count = branches[parent].count;
            for (uint32_t slot = next_free(children[0].code + 1);; slot = next_free(slot + 1)) {
                const uint32_t base = slot - children[0].code;
                reach(base + characters_ + 2);
                const auto taken = [&](const Branch& child) { return next[base + child.code] != base + child.code; };
                if (is_base[base] || std::any_of(children, children + count, taken)) continue;
                for (uint32_t i = 0; i < count; ++i) next[base + children[i].code]++;
                is_base[base] = true;
                bases[parent] = base;
                last_base = std::max(last_base, base);
                break;
            }
        }
        // Any base + any code is a slot, so following a character never leaves the array.
        const auto heard = [&](const Branch& parent) {
            uint32_t bits = 0;
            for (uint32_t i = 0; i < parent.count; ++i) bits |= 1U << branches[parent.children + i].code % 16;
            return static_cast<uint16_t>(bits);
        };
        nodes_.assign(last_base + characters_ + 1, Node{0, 0, 0, kNever, 0});
        for (uint32_t parent : order) {
            for (uint32_t i = 0; i < branches[parent].count; ++i) {
                const uint32_t at = branches[parent].children + i;
                const Branch& child = branches[at];
                nodes_[bases[parent] + child.code] = {bases[at], child.code, heard(child), child.score, child.piece};
            }
        }
        root_base_ = bases[0];
    }

    std::vector<uint16_t> codes_;  // by code point
    std::vector<Node> first_;
    std::vector<Node> nodes_;
    uint32_t characters_ = 0;
    uint32_t longest_ = 1;
    uint32_t root_base_ = 0;
};

}  // namespace janeox
