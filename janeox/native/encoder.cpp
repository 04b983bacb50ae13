// Text → ids of a sentencepiece unigram model, with exactly sentencepiece's ids; called from janeox/native.py.
//
// The best cut of a text into pieces is found as sentencepiece finds it: positions from left to right, float32 sums in
// the same order, the first candidate kept where two are equal, and sums shifted back to 0 where they pass ±100,000. A
// text is worked through in windows that stay in the cache; all but a few characters of a window are decided by its end,
// namely those before the last position that the best paths to all open positions share.
#include <cfloat>
#include <cstdint>
#include <cstring>

#include "normalizer.h"
#include "vocabulary.h"

static_assert(FLT_EVAL_METHOD == 0, "sums in wider registers would break ties otherwise than sentencepiece");

namespace janeox {
namespace {

constexpr float kShiftBeyond = 100000.0F;
constexpr size_t kWindow = 1024;     // characters, of 14 bytes each in the arrays of Window
constexpr size_t kAhead = 6;         // characters by which memory is asked for before it is needed

enum PieceType : uint8_t { kNormal = 1, kUserDefined = 4 };  // others do not occur in text

// The best path to a position: its score, and its last piece.
struct Best {
    float score;
    uint32_t piece;  // packed
};

// The characters that are being worked on, and the best path to each position before, between and after them.
struct Window {
    std::vector<uint32_t> points;
    std::vector<uint16_t> codes;
    std::vector<Best> best;  // kNever beyond the last position
    std::vector<uint8_t> marked;
    std::vector<uint32_t> cut;  // pieces of the decided part, last one first
    size_t size = 0;            // characters
    size_t at = 0;              // the first position whose pieces are still to be tried

    // Makes room for `count` characters after the last one, and for positions `ahead` of those.
    void reserve(size_t count, size_t ahead) {
        const size_t needed = size + count + ahead + kAhead + 2;
        if (points.size() >= needed) return;
        points.resize(needed * 2);
        codes.resize(needed * 2);
        best.resize(needed * 2, Best{kNever, 0});
        marked.resize(needed * 2, 0);
    }
};

inline void prefetch(const void* address) {
#ifdef __GNUC__
    __builtin_prefetch(address);
#else
    (void)address;
#endif
}

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
            if (window.size + longest + kAhead + 2 > window.points.size()) window.reserve(wanted, longest);
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
            // What follows may be of another vocabulary, and codes are looked up a little ahead.
            std::fill_n(window.codes.begin() + static_cast<ptrdiff_t>(window.size), kAhead + 2, uint16_t{0});
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
        const Node* nodes = vocabulary_.nodes();
        const Node* firsts = vocabulary_.first();
        const uint16_t* codes = window.codes.data();
        Best* from = window.best.data() + window.at;
        for (size_t at = window.at; at < stop; ++at, ++from) {
            if (from->score < -kShiftBeyond || from->score > kShiftBeyond) shift(from);
            prefetch(nodes + firsts[codes[at + kAhead]].base + codes[at + kAhead + 1]);
            const float score = from->score;
            const uint16_t* code = codes + at;
            Best* to = from + 1;
            const Node* node = firsts + *code;
            improve(*to, score, *node);
            while (node->heard >> *++code % 16 & 1) {
                const Node* next = nodes + node->base + *code;
                if (next->code != *code) break;
                node = next;
                improve(*++to, score, *node);
            }
        }
        window.at = std::max(window.at, stop);
    }

    static void improve(Best& best, float score, const Node& node) {
        const float candidate = node.score + score;
        if (candidate > best.score) best = {candidate, node.piece};  // a node that ends no piece scores kNever
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

// Of this thread. Memory that is kept is neither given back to the system nor asked for again with every call, which
// would stop the other threads each time.
thread_local Window own_window;          // empty whenever no document is being encoded
thread_local std::vector<uint32_t> own_ids;  // of the last call
constexpr size_t kKept = size_t{1} << 22;    // ids

// Leaves the ids of `count` documents in own_ids; false where memory ran out.
bool fill(const Encoder& encoder, const uint32_t* text, const int64_t* lengths, int64_t count, int64_t* counts) {
    try {
        own_ids.clear();
        for (int64_t i = 0; i < count; text += lengths[i++]) {
            const size_t before = own_ids.size();
            encoder.encode(text, lengths[i], own_window, own_ids);
            counts[i] = static_cast<int64_t>(own_ids.size() - before);
        }
        return true;
    } catch (const std::exception&) {
        own_window = Window{};
        own_ids = {};
        return false;
    }
}

void say(char* error, size_t size, const char* message) {
    std::strncpy(error, message, size - 1);
    error[size - 1] = 0;
}

}  // namespace
}  // namespace janeox

using namespace janeox;

extern "C" {

struct JaneoxModel {
    const uint32_t* text;     // code points of all pieces
    const int32_t* lengths;   // [pieces] code points of each
    const float* scores;      // [pieces]
    const uint8_t* types;     // [pieces] as in sentencepiece_model.proto
    const int32_t* byte_ids;  // [256], or null without byte fallback
    const uint8_t* rules;     // compiled normalisation
    int64_t rules_size;       // bytes; 0 for identity
    int32_t pieces, unknown_id;
    uint8_t dummy_prefix, trim, escape;
};

// Which layout of the calls below this library has.
int janeox_version() { return 5; }

// Null with a reason in `error` [size] where this kind of model is not covered.
Encoder* janeox_encoder_new(const JaneoxModel* model, char* error, size_t size) {
    try {
        std::vector<Piece> pieces;
        std::vector<std::vector<uint32_t>> kept;
        float lowest = FLT_MAX;
        const uint32_t* text = model->text;
        for (int32_t id = 0; id < model->pieces; text += model->lengths[id++]) {
            const uint8_t type = model->types[id];
            float score = model->scores[id];
            if (type == kNormal) lowest = std::min(lowest, score);
            if (type != kNormal && type != kUserDefined) continue;
            Piece piece{{text, text + model->lengths[id]}, score, static_cast<uint32_t>(id)};
            if (type == kUserDefined) {  // outweighs what it is made of; sentencepiece's formula, in bytes
                int bytes = 0;
                uint8_t unused[4];
                for (uint32_t c : piece.text) bytes += to_utf8(c, unused);
                if (bytes > 64) throw std::length_error("a user-defined piece of more than 64 bytes");
                piece.score = static_cast<float>(0.1 * (bytes - 1));
                kept.push_back(piece.text);
            }
            pieces.push_back(std::move(piece));
        }
        const NormalizerOptions options{model->dummy_prefix != 0, model->trim != 0, model->escape != 0};
        Vocabulary vocabulary(std::move(pieces), lowest);
        Normalizer normalizer(std::move(kept), model->rules, static_cast<size_t>(model->rules_size), options);
        return new Encoder(std::move(vocabulary), std::move(normalizer), static_cast<uint32_t>(model->unknown_id),
                           model->byte_ids);
    } catch (const std::exception& reason) {
        say(error, size, reason.what());
        return nullptr;
    }
}

void janeox_encoder_free(Encoder* encoder) { delete encoder; }

// Encodes `count` documents of lengths[i] code points that follow one another in `text`. `counts` [count] gets the number
// of ids of each. Returns their sum, -1 where memory ran out. Any number of threads may call it at once.
int64_t janeox_encode(const Encoder* encoder, const uint32_t* text, const int64_t* lengths, int64_t count,
                      int64_t* counts) {
    return fill(*encoder, text, lengths, count, counts) ? static_cast<int64_t>(own_ids.size()) : -1;
}

// Copies the ids of this thread's last call to `out`, as uint16 or int32 (`width` bytes).
void janeox_take(void* out, int width) {
    if (width == 2) {
        std::transform(own_ids.begin(), own_ids.end(), static_cast<uint16_t*>(out), [](uint32_t id) { return uint16_t(id); });
    } else {
        std::copy(own_ids.begin(), own_ids.end(), static_cast<int32_t*>(out));
    }
    if (own_ids.capacity() > kKept) own_ids = {};
}

// The same for one document of `length` code points in one call: `out` [room] gets the ids, if they are no more than that.
int64_t janeox_encode_one(const Encoder* encoder, const uint32_t* text, int64_t length, int32_t* out, int64_t room) {
    int64_t count = 0;
    if (!fill(*encoder, text, &length, 1, &count)) return -1;
    if (count <= room) std::copy(own_ids.begin(), own_ids.end(), out);
    return count;
}
}
