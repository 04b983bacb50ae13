// What is used of Python's interface: its stable one, and PyUnicode_FromKindAndData. It is declared here because machines
// with a compiler often lack Python.h. The loader finds these functions in the interpreter that opens the library.
#pragma once

#include <cstdint>

extern "C" {
struct PyObject;
struct PyThreadState;
PyThreadState* PyEval_SaveThread();
void PyEval_RestoreThread(PyThreadState*);
int PyErr_CheckSignals();
PyObject* PyErr_Occurred();
PyObject* PyErr_NoMemory();
void Py_IncRef(PyObject*);
void Py_DecRef(PyObject*);
PyObject* PyList_GetItem(PyObject*, intptr_t);
PyObject* PyList_New(intptr_t);
int PyList_Append(PyObject*, PyObject*);
int PyList_SetItem(PyObject*, intptr_t, PyObject*);
intptr_t PyTuple_Size(PyObject*);
PyObject* PyTuple_GetItem(PyObject*, intptr_t);
PyObject* PyDict_New();
int PyDict_SetItem(PyObject*, PyObject*, PyObject*);
PyObject* PyLong_FromLongLong(long long);
intptr_t PyBytes_Size(PyObject*);
char* PyBytes_AsString(PyObject*);
PyObject* PyBytes_FromStringAndSize(const char*, intptr_t);
intptr_t PyUnicode_GetLength(PyObject*);
const char* PyUnicode_AsUTF8AndSize(PyObject*, intptr_t*);
PyObject* PyUnicode_FromKindAndData(int, const void*, intptr_t);
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
