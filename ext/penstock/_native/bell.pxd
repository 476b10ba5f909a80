from libc.stdint cimport int64_t

from penstock._native.control cimport bell_word
from penstock._native.mapping cimport Mapping


cdef class Bells:
    cdef Mapping map
    cdef bell_word *word(self, Py_ssize_t number) noexcept


cdef class Bell:
    cdef Bells bells
    cdef bell_word *words
    cdef readonly Py_ssize_t number
    cdef int64_t pause_ns
    cdef public bint closed  # whose it is was closed, in this process
