"""Whether events surely are what their classes say, by the exact types of what is in their fields.

It only ever says yes: what a `Shape` does not know (a subclass, a number of more than 64 bits, a time zone of one's own)
has to be decided otherwise. No code of others runs meanwhile. Thread safety: a `Shape` is immutable.
"""

cimport cpython.datetime as datetime_api
from cpython.dict cimport PyDict_Next
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject, PyTypeObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.math cimport isfinite

import datetime
import uuid

from penstock.errors import InvalidTypeError


cdef extern from "Python.h":
    PyTypeObject PyUnicode_Type, PyLong_Type, PyFloat_Type, PyBool_Type, PyBytes_Type, PyList_Type, PyTuple_Type, PyDict_Type
    PyTypeObject *Py_TYPE(PyObject *)
    double PyFloat_AS_DOUBLE(PyObject *)
    long long PyLong_AsLongLongAndOverflow(PyObject *, int *) except? -1

cdef extern from "structmember.h":
    ctypedef struct PyMemberDef:
        int type
        Py_ssize_t offset
    ctypedef struct PyMemberDescrObject:
        PyMemberDef *d_member
    PyTypeObject PyMemberDescr_Type
    int T_OBJECT_EX

datetime_api.import_datetime()

STR, INT, FLOAT, BOOL, NONE, BYTES, DATETIME, DATE, UUID = [1 << number for number in range(9)]

cdef enum:
    _STR = 1
    _INT = 2
    _FLOAT = 4
    _BOOL = 8
    _NONE = 16
    _BYTES = 32
    _DATETIME = 64
    _DATE = 128
    _UUID = 256

cdef object _utc = datetime.UTC
cdef type _datetime_type = datetime.datetime
cdef type _date_type = datetime.date
cdef type _uuid_type = uuid.UUID


cdef class Shape:
    """`Shape(types, items=None, values=None, struct=None, fields=())`: what a value may be.

    `types`: any of STR, INT and so on; `items`: a list or tuple of values of that shape; `values`: a dict with str keys;
    `struct`: an object of exactly that class, with `fields`, a (name, shape) for each of its slots.
    """

    cdef int types
    cdef Shape items
    cdef Shape values
    cdef object struct
    cdef tuple shapes
    cdef Py_ssize_t *offsets

    def __init__(self, int types, Shape items=None, Shape values=None, struct=None, fields=()):
        cdef Py_ssize_t i
        cdef object slot
        self.types = types
        self.items = items
        self.values = values
        self.struct = struct
        self.shapes = tuple([shape for _, shape in fields])
        PyMem_Free(self.offsets)
        self.offsets = <Py_ssize_t *>PyMem_Malloc(max(len(fields), 1) * sizeof(Py_ssize_t))
        if self.offsets == NULL:
            raise MemoryError()
        for i, (name, shape) in enumerate(fields):
            slot = getattr(struct, name)
            if Py_TYPE(<PyObject *>slot) != &PyMemberDescr_Type or (<PyMemberDescrObject *>slot).d_member.type != T_OBJECT_EX:
                raise InvalidTypeError(f"{struct.__name__}.{name} is {slot!r}; a slot is needed")
            if not isinstance(shape, Shape):
                raise InvalidTypeError(f"fields has {shape!r} for {name}; a Shape is needed")
            self.offsets[i] = (<PyMemberDescrObject *>slot).d_member.offset

    def __dealloc__(self):
        PyMem_Free(self.offsets)

    cdef bint fits(self, PyObject *value) noexcept:
        """Whether a value surely is of this shape. Requires one that is not NULL."""
        cdef PyTypeObject *cls = Py_TYPE(value)
        cdef int overflow = 0
        cdef object zone
        if cls == &PyUnicode_Type:
            return self.types & _STR
        if cls == &PyLong_Type:
            if not self.types & (_INT | _FLOAT):
                return False
            PyLong_AsLongLongAndOverflow(value, &overflow)
            return overflow == 0
        if cls == <PyTypeObject *>self.struct:
            return self.fields_fit(value)
        if value == <PyObject *>None:
            return self.types & _NONE
        if cls == &PyFloat_Type:
            return self.types & _FLOAT and isfinite(PyFloat_AS_DOUBLE(value))
        if cls == &PyBool_Type:
            return self.types & _BOOL
        if cls == &PyList_Type or cls == &PyTuple_Type:
            return self.items is not None and _items_fit(self.items, value, cls == &PyList_Type)
        if cls == &PyDict_Type:
            return self.values is not None and _values_fit(self.values, value)
        if cls == &PyBytes_Type:
            return self.types & _BYTES
        if cls == <PyTypeObject *>_datetime_type:
            zone = datetime_api.datetime_tzinfo(<object>value)
            return self.types & _DATETIME and (zone is None or zone is _utc)
        if cls == <PyTypeObject *>_date_type:
            return self.types & _DATE
        return cls == <PyTypeObject *>_uuid_type and self.types & _UUID

    cdef bint fields_fit(self, PyObject *value) noexcept:
        cdef Py_ssize_t i
        cdef PyObject *field
        for i in range(PyTuple_GET_SIZE(self.shapes)):
            field = (<PyObject **>(<char *>value + self.offsets[i]))[0]
            if field == NULL or not (<Shape>PyTuple_GET_ITEM(self.shapes, i)).fits(field):
                return False
        return True


cdef bint _items_fit(Shape shape, PyObject *items, bint is_list) noexcept:
    cdef Py_ssize_t i
    if is_list:
        for i in range(PyList_GET_SIZE(<object>items)):
            if not shape.fits(<PyObject *>PyList_GET_ITEM(<object>items, i)):
                return False
        return True
    for i in range(PyTuple_GET_SIZE(<object>items)):
        if not shape.fits(<PyObject *>PyTuple_GET_ITEM(<object>items, i)):
            return False
    return True


cdef bint _values_fit(Shape shape, PyObject *items) noexcept:
    cdef Py_ssize_t place = 0
    cdef PyObject *key = NULL
    cdef PyObject *value = NULL
    while PyDict_Next(<object>items, &place, &key, &value):
        if Py_TYPE(key) != &PyUnicode_Type or not shape.fits(value):
            return False
    return True


def all_fit(list values not None, dict shapes not None):
    """Whether every value surely is of the shape of its class in `shapes` ({class: `Shape` or None})."""
    cdef Py_ssize_t i
    cdef PyTypeObject *last = NULL
    cdef PyObject *value
    cdef Shape shape = None
    for i in range(PyList_GET_SIZE(values)):
        value = <PyObject *>PyList_GET_ITEM(values, i)
        if Py_TYPE(value) != last:
            last = Py_TYPE(value)
            shape = shapes.get(<object>last)
            if shape is None:
                return False
        if not shape.fits(value):
            return False
    return True
