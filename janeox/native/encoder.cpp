// Texts → ids of a sentencepiece unigram model, with exactly sentencepiece's ids; called from janeox/tokenizer/encoder.py.
//
// A portion of texts is copied as code points while Python's lock is held, and encoded without it. The copy is so quick
// beside the rest that threads seldom wait for one another.
#include "encoder.h"

#include <atomic>
#include <memory>
#include <mutex>

#include "python_api.h"

namespace janeox {
namespace {

constexpr uint32_t kReplacement = 0xFFFD;
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
    int64_t first;  // text
    size_t bytes;   // of the ids
    std::unique_ptr<uint8_t[]> ids;
    size_t at;      // bytes of the portions before it
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
    PyObject* texts;            // a list or tuple
    int64_t* counts;            // [size] gets the number of ids of each text
    int64_t size, portion;      // texts; characters of a portion, which a longer text exceeds
    int width;                  // bytes of an id: 2 or 4
    std::atomic<int64_t> next;  // the first text that no thread has taken
    std::mutex mutex;
    std::vector<Portion> done;
    bool ordered;  // whether `done` is, and `next` one of its portions
};

// Which layout of the calls below this library has.
int janeox_version() { return 7; }

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
JaneoxBatch* janeox_batch_new(const Encoder* encoder, PyObject* texts, int64_t size, int64_t* counts, int64_t portion,
                              int width) {
    return new JaneoxBatch{encoder, texts, counts, size, portion, width, {0}, {}, {}, false};
}

void janeox_batch_free(JaneoxBatch* batch) { delete batch; }

// Encodes portion after portion until none is left; any number of threads may be in here. On an error or a signal, which
// it leaves as a Python error, the other threads stop after their portions too.
void janeox_batch_work(JaneoxBatch* batch) {
    try {
        for (Borrowed space;; space.clear()) {
            int64_t start = batch->next, stop = start;
            bool failed = false;
            while (!failed && stop < batch->size && space->size < static_cast<size_t>(batch->portion)) {
                PyObject* text = PySequence_GetItem(batch->texts, stop++);
                failed = text == nullptr || !space->read(text);
                if (text != nullptr) Py_DecRef(text);
            }
            if (failed) break;
            if (start == stop) return;
            if (!batch->next.compare_exchange_strong(start, stop)) continue;  // only where Python has no lock
            {
                Unlocked unlocked;
                space->encode(*batch->encoder, batch->counts + start);
                const size_t bytes = space->ids.size() * static_cast<size_t>(batch->width);
                std::unique_ptr<uint8_t[]> ids(new uint8_t[bytes]);
                if (batch->width == 2) {
                    std::copy(space->ids.begin(), space->ids.end(), reinterpret_cast<uint16_t*>(ids.get()));
                } else {
                    std::memcpy(ids.get(), space->ids.data(), bytes);
                }
                const std::lock_guard<std::mutex> lock(batch->mutex);
                batch->done.push_back({start, bytes, std::move(ids), 0});
            }
            if (PyErr_CheckSignals() < 0) break;
        }
    } catch (const std::exception&) {
        PyErr_NoMemory();
    }
    batch->next = batch->size;
}

// Copies the ids of all texts, end to end, to `out`; any number of threads may be in here, once no text is left. Much of
// the time is the system's, which makes `out` only when it is written.
void janeox_batch_take(JaneoxBatch* batch, uint8_t* out) {
    const Unlocked unlocked;
    std::vector<Portion>& done = batch->done;
    {
        const std::lock_guard<std::mutex> lock(batch->mutex);
        if (!batch->ordered) {
            std::sort(done.begin(), done.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
            for (size_t i = 1; i < done.size(); ++i) done[i].at = done[i - 1].at + done[i - 1].bytes;
            batch->ordered = true;
            batch->next = 0;  // of the portions, from here on
        }
    }
    for (size_t i; (i = static_cast<size_t>(batch->next++)) < done.size();) {
        std::memcpy(out + done[i].at, done[i].ids.get(), done[i].bytes);
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
