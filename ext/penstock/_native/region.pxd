from libc.stdint cimport int64_t


cdef class Region:
    cdef const char *data
    cdef Py_ssize_t size
    cdef readonly str path
    cdef readonly int64_t position
    cdef readonly object owner
