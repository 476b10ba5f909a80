from libc.stdint cimport int64_t


cdef class Mapping:
    cdef char *data
    cdef readonly Py_ssize_t length
    cdef readonly int fd
    cdef readonly bint writable
    cdef readonly str path
    cpdef int64_t file_size(self) except -1
    cdef int64_t size_or_zero(self) noexcept
