from libc.stdint cimport int64_t, uint32_t

from penstock._native.builder cimport BatchBuilder
from penstock._native.lane cimport Lane, TopicLanes
from penstock._native.bell cimport Bell


cdef class Appender:
    cdef readonly object _broker
    cdef object _clock
    cdef bint _system_clock
    cdef Bell _catalog_bell
    cdef uint32_t _generation
    cdef TopicLanes _lanes
    cdef BatchBuilder _spare
    cdef int64_t _sticky_bytes
    cdef dict _lookups
    cdef readonly str name
    cdef int _reload(self) except -1
    cdef int64_t _now(self) except -1
    cdef object _store(self, Lane lane, BatchBuilder builder, Py_ssize_t size, expected_offset)
    cdef object _store_sealed(self, Lane lane, BatchBuilder builder, Py_ssize_t size, expected_offset)
