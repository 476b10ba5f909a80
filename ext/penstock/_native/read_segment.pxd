from libc.stdint cimport int64_t

from penstock._native.mapping cimport Mapping


cdef class ReadSegment:
    cdef readonly Mapping log
    cdef readonly Mapping index
    cdef readonly Mapping time_index
    cdef readonly int64_t base_offset
    cdef int64_t sealed_size
    cdef bint indexed  # whether the indexes were looked for
