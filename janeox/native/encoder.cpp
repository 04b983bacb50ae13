// Texts → ids of a sentencepiece unigram model, with exactly sentencepiece's ids; called from janeox/tokenizer/encoder.py.
//
// A portion of texts is copied as code points while Python's lock is held, and encoded without it. The copy is so quick
// beside the rest that threads seldom wait for one another.
#include "encoder.h"

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>

#include "python_api.h"

namespace janeox {
namespace {

constexpr uint32_t kReplacement = 0xFFFD;
constexpr int64_t kAhead = 128;            // texts that are put into portions together
constexpr int64_t kFetched = 8;            // texts that are asked from memory before their turn
constexpr size_t kKept = size_t{1} << 22;  // characters or ids for which a thread keeps memory

enum PieceType : uint8_t { kNormal = 1, kUserDefined = 4 };  // others do not occur in text

// What one thread works with.
struct Workspace {
    std::unique_ptr<uint32_t[]> text;  // code points of the portion's texts, end to end
    size_t room = 0, size = 0;         // of `text`: code points for which there is memory, and those that are there
    std::vector<int64_t> lengths;      // of its texts
    Window window;                     // empty whenever no text is being encoded
    std::vector<uint32_t> ids;

    // Puts a text after the others. The caller holds Python's lock. Returns false with a Python error.
    bool read(PyObject* string) {
        const intptr_t length = PyUnicode_GetLength(string);
        if (length < 0) return false;
        const size_t end = size + static_cast<size_t>(length);
        if (end >= room) {  // Python wants an address for an empty text too
            const size_t enough = std::max(end + 1, 2 * room);
            std::unique_ptr<uint32_t[]> more(new uint32_t[enough]);  // a vector would fill it first
            std::copy_n(text.get(), size, more.get());
            text = std::move(more);
            room = enough;
        }
        if (PyUnicode_AsUCS4(string, text.get() + size, length, 0) == nullptr) return false;
        size = end;
        lengths.push_back(length);
        return true;
    }

    // Leaves the texts' ids in `ids`, and in `counts` [texts] how many each has.
    void encode(const Encoder& encoder, int64_t* counts) {
        uint32_t* at = text.get();
        ids.reserve(size);
        bool surrogates = false;
        for (size_t i = 0; i < size; ++i) surrogates |= is_surrogate(at[i]);
        for (const int64_t length : lengths) {
            const size_t before = ids.size();
            encoder.encode(at, surrogates ? without_surrogates(at, length) : length, window, ids);
            *counts++ = static_cast<int64_t>(ids.size() - before);
            at += length;
        }
    }

   private:
    static bool is_surrogate(uint32_t c) { return (c & 0xFFFFF800) == 0xD800; }

    // Puts the character that a pair stands for in its place, U+FFFD in that of a lone one. Returns the new length.
    static int64_t without_surrogates(uint32_t* text, int64_t length) {
        int64_t kept = 0;
        for (int64_t i = 0; i < length; ++i) {
            uint32_t c = text[i];
            if (is_surrogate(c)) {
                const bool pair = c < 0xDC00 && i + 1 < length && (text[i + 1] & 0xFFFFFC00) == 0xDC00;
                c = pair ? 0x10000 + ((c & 0x3FF) << 10 | (text[++i] & 0x3FF)) : kReplacement;
            }
            text[kept++] = c;
        }
        return kept;
    }
};

// A thread's workspace, for as long as this lives. Its memory is kept for the thread's next call: giving it back to the
// system and asking again would stop the other threads each time. (Another call on the same thread may come in between,
// where Python frees something or handles a signal; it gets a new one.)
class Borrowed {
   public:
    Borrowed() : space_(own() ? std::move(own()) : std::make_unique<Workspace>()) { clear(); }
    ~Borrowed() {
        const bool fit = space_->window.size == 0 && space_->room <= kKept && space_->ids.capacity() <= kKept;
        if (fit) own() = std::move(space_);
    }
    Borrowed(const Borrowed&) = delete;
    Borrowed& operator=(const Borrowed&) = delete;
    Workspace* operator->() { return space_.get(); }
    void clear() {
        space_->size = 0;
        space_->lengths.clear();
        space_->ids.clear();
    }

   private:
    static std::unique_ptr<Workspace>& own() {
        thread_local std::unique_ptr<Workspace> space;
        return space;
    }
    std::unique_ptr<Workspace> space_;
};

// Some texts of a batch that follow one another.
struct Portion {
    int64_t first, stop, characters;  // texts [first, stop), and their length
    std::unique_ptr<uint8_t[]> ids;   // once they are encoded
    size_t bytes, at;                 // of the ids, and of those of the portions before it
};

// A new list of Python's integers; null with a Python error. `integers` is a tuple of 0, 1, 2, …
template <class Id>
PyObject* new_list(const Id* ids, int64_t count, PyObject* integers) {
    PyObject* list = PyList_New(count);
    if (list == nullptr) return nullptr;
    for (int64_t i = 0; i < count; ++i) {
        PyObject* integer = PyTuple_GetItem(integers, static_cast<intptr_t>(ids[i]));
        Py_IncRef(integer);
        PyList_SetItem(list, i, integer);
    }
    return list;
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

// Texts that are being encoded by any number of threads.
struct JaneoxBatch {
    const Encoder* encoder;
    PyObject* texts;             // a list; its items are borrowed, so that threads do not write to the same memory
    int64_t* counts;             // [size] gets the number of ids of each text
    int64_t size, characters;    // texts; those of a portion have so many characters together, or a few more
    size_t width;                // bytes of an id: 2 or 4
    std::mutex mutex;            // of the next three
    int64_t seen;                // texts that are in a portion
    std::deque<Portion> portions;
    std::vector<Portion*> free;  // those that no thread has taken; the last one is next
    std::atomic<size_t> copied;  // portions

    // Takes a portion; null when none is left, or with a Python error. The caller holds Python's lock. The longest one of
    // the next texts comes first, so that no thread is left with it when the others have finished.
    Portion* take() {
        const std::lock_guard<std::mutex> lock(mutex);
        if (free.empty()) put_into_portions(std::min(size, seen + kAhead));
        if (free.empty()) return nullptr;
        Portion* portion = free.back();
        free.pop_back();
        return portion;
    }

    // Leaves nothing to take.
    void stop() {
        const std::lock_guard<std::mutex> lock(mutex);
        seen = size;
        free.clear();
    }

   private:
    void put_into_portions(int64_t end) {
        for (; seen < end; ++seen) {
            if (seen + kFetched < end) __builtin_prefetch(PyList_GetItem(texts, seen + kFetched));
            PyObject* text = PyList_GetItem(texts, seen);
            const intptr_t length = text == nullptr ? -1 : PyUnicode_GetLength(text);
            if (length < 0) return free.clear();
            if (free.empty() || free.back()->characters >= characters) {
                free.push_back(&portions.emplace_back(Portion{seen, seen, 0, nullptr, 0, 0}));
            }
            free.back()->stop = seen + 1;
            free.back()->characters += length;
        }
        std::reverse(free.begin(), free.end());
        const auto rank = [&](const Portion* portion) { return portion->characters / characters; };
        std::stable_sort(free.begin(), free.end(), [&](auto* a, auto* b) { return rank(a) < rank(b); });
    }
};

// Which layout of the calls below this library has.
int janeox_version() { return 11; }

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

// All calls that follow are made with Python's lock held. Those that say so leave a Python error.

// The caller keeps the objects alive until janeox_batch_free.
JaneoxBatch* janeox_batch_new(const Encoder* encoder, PyObject* texts, int64_t size, int64_t* counts, int64_t characters,
                              int width) {
    return new JaneoxBatch{encoder, texts, counts, size, characters, static_cast<size_t>(width), {}, 0, {}, {}, {0}};
}

void janeox_batch_free(JaneoxBatch* batch) { delete batch; }

// Encodes portion after portion until none is left; any number of threads may be in here. On an error or a signal, which
// it leaves as a Python error, the other threads stop after their portions too.
void janeox_batch_work(JaneoxBatch* batch) {
    try {
        Borrowed space;
        for (Portion* portion; (portion = batch->take()) != nullptr; space.clear()) {
            bool read = true;
            for (int64_t i = portion->first; read && i < portion->stop; ++i) {
                PyObject* text = PyList_GetItem(batch->texts, i);
                read = text != nullptr && space->read(text);
            }
            if (!read) break;
            {
                const Unlocked unlocked;
                space->encode(*batch->encoder, batch->counts + portion->first);
                portion->bytes = space->ids.size() * batch->width;
                portion->ids.reset(new uint8_t[portion->bytes]);
                if (batch->width == 2) {
                    std::copy(space->ids.begin(), space->ids.end(), reinterpret_cast<uint16_t*>(portion->ids.get()));
                } else {
                    std::memcpy(portion->ids.get(), space->ids.data(), portion->bytes);
                }
            }
            if (PyErr_CheckSignals() < 0) break;
        }
    } catch (const std::exception&) {
        PyErr_NoMemory();
    }
    batch->stop();
}

// How many ids all texts have. It is called once, when all portions are encoded, and before janeox_batch_take.
int64_t janeox_batch_count(JaneoxBatch* batch) {
    size_t bytes = 0;
    for (Portion& portion : batch->portions) {
        portion.at = bytes;
        bytes += portion.bytes;
    }
    return static_cast<int64_t>(bytes / batch->width);
}

// Copies the ids of all texts, end to end, to `out`; any number of threads may be in here. Much of the time is the
// system's, which makes `out` only when it is written.
void janeox_batch_take(JaneoxBatch* batch, uint8_t* out) {
    const Unlocked unlocked;
    for (size_t i; (i = batch->copied++) < batch->portions.size();) {
        const Portion& portion = batch->portions[i];
        std::memcpy(out + portion.at, portion.ids.get(), portion.bytes);
    }
}

// A new list of the ids of one text; null with a Python error.
PyObject* janeox_encode(const Encoder* encoder, PyObject* text, PyObject* integers) {
    try {
        Borrowed space;
        int64_t count = 0;
        if (!space->read(text)) return nullptr;
        {
            const Unlocked unlocked;
            space->encode(*encoder, &count);
        }
        return new_list(space->ids.data(), count, integers);
    } catch (const std::exception&) {
        return PyErr_NoMemory();
    }
}

// A new list of the lists of each text's ids; null with a Python error. `counts` [size] says how many each has.
PyObject* janeox_lists(const int32_t* ids, const int64_t* counts, int64_t size, PyObject* integers) {
    PyObject* lists = PyList_New(size);
    for (int64_t i = 0; lists != nullptr && i < size; ids += counts[i++]) {
        PyObject* list = new_list(ids, counts[i], integers);
        if (list != nullptr) {
            PyList_SetItem(lists, i, list);
        } else {
            Py_DecRef(lists);
            lists = nullptr;
        }
    }
    return lists;
}
}
