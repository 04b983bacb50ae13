// Rows of JSON → the values of a few of their fields, and UTF-8 → Python's strings; called from janeox/corpus/rows.py.
//
// Each string is checked and widened in the pass that looks for its end; one that nobody asked for is then forgotten.
// Nothing that is unusual in a row is settled here: such a row is handed back, and Python decides.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "python_api.h"
#include "widen.h"

namespace janeox {
namespace {

constexpr int kDepth = 60;       // of what is skipped; Python has a limit of its own
constexpr int kNumber = 60;      // characters of a number that is skipped; a longer one may be out of range
constexpr int kDigits = 18;      // of an integer that is wanted

// Room for the characters of a row or text.
class Scratch {
   public:
    // False with a Python error.
    bool make(int64_t characters) {
        const size_t wanted = static_cast<size_t>(characters) + kSlack;
        if (wanted <= room_) return true;
        memory_.reset(new (std::nothrow) uint32_t[wanted]);
        room_ = memory_ == nullptr ? 0 : wanted;
        return room_ > 0 || PyErr_NoMemory() != nullptr;
    }
    template <class Char>
    Char* of() {
        return reinterpret_cast<Char*>(memory_.get());
    }

   private:
    std::unique_ptr<uint32_t[]> memory_;
    size_t room_ = 0;
};

PyObject* new_bytes(const uint8_t* start, const uint8_t* end) {
    return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(start), end - start);
}

// Null where a Char is too small or this is not UTF-8, or with a Python error.
template <class Char>
PyObject* text_of(const uint8_t* start, const uint8_t* end, Scratch& scratch) {
    Char* to = scratch.of<Char>();
    if (plain<Char, false>(start, end, to) == nullptr) return nullptr;
    return PyUnicode_FromKindAndData(sizeof(Char), scratch.of<Char>(), to - scratch.of<Char>());
}

// Four hexadecimal digits, or something over 0xFFFF.
uint32_t hexadecimal(const uint8_t* p) {
    uint32_t code = 0;
    for (int k = 0; k < 4; ++k) {
        const uint32_t digit = p[k] - uint32_t{'0'}, letter = (p[k] | 0x20u) - 'a';
        code = code << 4 | (digit < 10 ? digit : letter < 6 ? letter + 10 : 0x10000);
    }
    return code;
}

struct Name {
    PyObject* object;
    const char* text;
    size_t size;
};

template <class Char>
class Row {
   public:
    // `scratch` has room for as many characters as the row has bytes, and kSlack.
    Row(const uint8_t* start, const uint8_t* end, Char* scratch) : p_(start), end_(end), scratch_(scratch) {}

    // A new dict of those of `names` that the row has; null where Python should decide, or with a Python error.
    PyObject* fields(const std::vector<Name>& names) {
        if (next() != '{') return nullptr;
        PyObject* found = PyDict_New();
        if (found != nullptr && (members(found, names) && peek() == 0 && p_ == end_)) return found;
        Py_DecRef(found);
        return nullptr;
    }

   private:
    uint8_t peek() {  // what follows white space, 0 at the end
        while (p_ < end_ && (*p_ == ' ' || *p_ == '\n' || *p_ == '\r' || *p_ == '\t')) ++p_;
        return p_ < end_ ? *p_ : 0;
    }
    uint8_t next() {
        const uint8_t c = peek();
        p_ += p_ < end_;
        return c;
    }

    bool members(PyObject* found, const std::vector<Name>& names) {
        if (peek() == '}') return next() == '}';
        for (;;) {
            if (next() != '"') return false;
            const uint8_t* key = p_;
            if (!string()) return false;
            const size_t size = static_cast<size_t>(p_ - 1 - key);
            if (std::memchr(key, '\\', size) != nullptr || next() != ':') return false;
            const auto name = std::find_if(names.begin(), names.end(), [&](const Name& one) {
                return one.size == size && std::memcmp(one.text, key, size) == 0;
            });
            if (name == names.end() ? !skip(kDepth) : !keep(found, name->object)) return false;
            const uint8_t c = next();
            if (c != ',') return c == '}';
        }
    }

    // Puts the value, a string or a whole number, under `name`; of several the last stays.
    bool keep(PyObject* found, PyObject* name) {
        PyObject* value = nullptr;
        if (peek() == '"') {
            ++p_;
            if (!string()) return false;
            value = PyUnicode_FromKindAndData(sizeof(Char), scratch_, to_ - scratch_);
        } else {
            const uint8_t* start = p_;
            int64_t number = 0;
            while (p_ < end_ && *p_ >= '0' && *p_ <= '9' && p_ - start < kDigits) number = 10 * number + (*p_++ - '0');
            if (p_ == start || (*start == '0' && p_ - start > 1)) return false;
            value = PyLong_FromLongLong(number);
        }
        if (value == nullptr) return false;
        const bool stored = PyDict_SetItem(found, name, value) == 0;
        Py_DecRef(value);
        return stored;
    }

    // Goes to after the string's end, and leaves it from `scratch_` to `to_`.
    bool string() {
        for (to_ = scratch_;;) {
            p_ = plain<Char, true>(p_, end_, to_);
            if (p_ == nullptr || p_ == end_) return false;
            const uint8_t c = *p_;
            if (c != '\\') {
                ++p_;
                return c == '"';
            }
            while (p_ < end_ && *p_ == '\\') {
                const uint8_t* before = p_;
                escapes(p_, end_, to_);
                if (p_ == before && !escape()) return false;
            }
        }
    }

    bool escape() {
        if (end_ - p_ < 2) return false;
        const uint8_t c = p_[1];
        p_ += 2;
        if (c != 'u') {
            static const char kFrom[] = "\"\\/bfnrt", kTo[] = "\"\\/\b\f\n\r\t";
            const char* place = c == 0 ? nullptr : std::strchr(kFrom, c);
            if (place == nullptr) return false;
            *to_++ = static_cast<Char>(kTo[place - kFrom]);
            return true;
        }
        if (end_ - p_ < 4) return false;
        uint32_t code = hexadecimal(p_);
        p_ += 4;
        if ((code & 0xFFFFFC00) == 0xD800 && sizeof(Char) == 4 && end_ - p_ >= 6 && p_[0] == '\\' && p_[1] == 'u') {
            const uint32_t low = hexadecimal(p_ + 2);
            if ((low & 0xFFFFFC00) != 0xDC00) return false;
            code = 0x10000 + ((code & 0x3FF) << 10 | (low & 0x3FF));
            p_ += 6;
        } else if (code > 0xFFFF || (code & 0xF800) == 0xD800) {
            return false;
        }
        *to_++ = static_cast<Char>(code);
        return true;
    }

    // Any value, with at most `deeper` levels in it.
    bool skip(int deeper) {
        const uint8_t c = peek();
        if (c == '"') {
            ++p_;
            return string();
        }
        if (c != '{' && c != '[') return literal("true") || literal("false") || literal("null") || number();
        const uint8_t close = c == '{' ? '}' : ']';
        ++p_;
        if (peek() == close) return next() == close;
        while (deeper > 0) {
            if (c == '{' && !(next() == '"' && string() && next() == ':')) return false;
            if (!skip(deeper - 1)) return false;
            const uint8_t after = next();
            if (after != ',') return after == close;
        }
        return false;
    }

    bool literal(const char* word) {
        const size_t size = std::strlen(word);
        const bool here = static_cast<size_t>(end_ - p_) >= size && std::memcmp(p_, word, size) == 0;
        p_ += here ? size : 0;
        return here;
    }

    bool number() {
        const uint8_t* start = p_;
        const auto digits = [this] {
            const uint8_t* first = p_;
            while (p_ < end_ && *p_ >= '0' && *p_ <= '9') ++p_;
            return p_ > first;
        };
        literal("-");
        if (!literal("0") && !digits()) return false;
        if (literal(".") && !digits()) return false;
        if (literal("e") || literal("E")) {
            if (!literal("+")) literal("-");
            if (!digits()) return false;
        }
        return p_ - start <= kNumber;
    }

    const uint8_t *p_, *end_;
    Char *scratch_, *to_ = nullptr;
};

}  // namespace
}  // namespace janeox

using namespace janeox;

extern "C" {

// Vector instructions or, for tests, none. Returns whether they are used from now on.
int janeox_rows_wide(int wanted) { return wide = wanted && has_wide(); }

// These are called with Python's lock held; null comes with a Python error.

// A new list of the rows that stand in `bytes` from `start` to `end`: for each a dict of those of `names` (a tuple of
// strings) that it has, or the row itself as bytes, with its line break, where it is longer than `longest` or unusual.
PyObject* janeox_rows(PyObject* bytes, int64_t start, int64_t end, int64_t longest, PyObject* names) {
    const uint8_t* p = reinterpret_cast<const uint8_t*>(PyBytes_AsString(bytes)) + start;
    const uint8_t* last = p + (end - start);
    std::vector<Name> wanted(static_cast<size_t>(PyTuple_Size(names)));
    for (size_t k = 0; k < wanted.size(); ++k) {
        intptr_t size = 0;
        wanted[k].object = PyTuple_GetItem(names, static_cast<intptr_t>(k));
        wanted[k].text = PyUnicode_AsUTF8AndSize(wanted[k].object, &size);
        wanted[k].size = static_cast<size_t>(size);
    }
    Scratch scratch;
    PyObject* rows = PyList_New(0);
    while (rows != nullptr && p < last) {
        const void* line_break = std::memchr(p, '\n', static_cast<size_t>(last - p));
        const uint8_t* stop = line_break == nullptr ? last : static_cast<const uint8_t*>(line_break) + 1;
        PyObject* row = nullptr;
        if (stop - p <= longest && scratch.make(stop - p)) {
            row = Row<uint16_t>(p, stop, scratch.of<uint16_t>()).fields(wanted);
            if (row == nullptr && PyErr_Occurred() == nullptr) row = Row<uint32_t>(p, stop, scratch.of<uint32_t>()).fields(wanted);
        }
        if (row == nullptr && PyErr_Occurred() == nullptr) row = new_bytes(p, stop);
        if (row == nullptr || PyList_Append(rows, row) < 0) {
            Py_DecRef(rows);
            rows = nullptr;
        }
        Py_DecRef(row);
        p = stop;
    }
    return rows;
}

// The text of `bytes`, or they themselves where they are not UTF-8.
PyObject* janeox_text(PyObject* bytes) {
    const uint8_t* p = reinterpret_cast<const uint8_t*>(PyBytes_AsString(bytes));
    const uint8_t* last = p + PyBytes_Size(bytes);
    Scratch scratch;
    if (!scratch.make(last - p)) return nullptr;
    PyObject* text = text_of<uint16_t>(p, last, scratch);
    if (text == nullptr && PyErr_Occurred() == nullptr) text = text_of<uint32_t>(p, last, scratch);
    if (text == nullptr && PyErr_Occurred() == nullptr) Py_IncRef(text = bytes);
    return text;
}
}
