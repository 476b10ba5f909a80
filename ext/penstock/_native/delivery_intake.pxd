from libc.stdint cimport int64_t

from penstock._native.delivery_files cimport DeliveryFiles
from penstock._native.format cimport record_fields


cdef class DeliveryIntake(DeliveryFiles):
    cdef Py_ssize_t decompressed_limit_bytes
    cdef bint keep
    cdef int _recover(self) except -1
    cdef bint _take_in(self, int64_t most=*) except -1
    cdef int _lower_all(self, int64_t start, int64_t end) except -1
    cdef int _skip_to(self, int64_t offset) except -1
    cdef int _parse_in(self, int64_t end) except -1
    cdef int64_t _visible_at(self, record_fields *fields) noexcept
    cdef void _enter(self, int64_t offset, const char *key, int64_t key_length, int64_t visible) noexcept
