// What is used of Python's stable interface. It is declared here because machines with a compiler often lack Python.h.
// The loader finds these functions in the interpreter that opens the library.
#pragma once

#include <cstdint>

extern "C" {
struct PyObject;
struct PyThreadState;
PyThreadState* PyEval_SaveThread();
void PyEval_RestoreThread(PyThreadState*);
int PyErr_CheckSignals();
PyObject* PyErr_NoMemory();
void Py_IncRef(PyObject*);
void Py_DecRef(PyObject*);
PyObject* PyList_GetItem(PyObject*, intptr_t);
PyObject* PyList_New(intptr_t);
int PyList_SetItem(PyObject*, intptr_t, PyObject*);
PyObject* PyTuple_GetItem(PyObject*, intptr_t);
intptr_t PyUnicode_GetLength(PyObject*);
uint32_t* PyUnicode_AsUCS4(PyObject*, uint32_t*, intptr_t, int);
}

namespace janeox {

// While one of these lives, other Python threads run, and no Python object may be touched.
class Unlocked {
   public:
    Unlocked() : state_(PyEval_SaveThread()) {}
    ~Unlocked() { PyEval_RestoreThread(state_); }
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;

   private:
    PyThreadState* state_;
};

}  // namespace janeox
