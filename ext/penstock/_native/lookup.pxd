from libc.stdint cimport int64_t, uint32_t

from penstock._native.control cimport control_slot
from penstock._native.partition cimport Partition
from penstock._native.records cimport Record, RecordCursor, Source


cdef class OpenBatch:
    cdef RecordCursor cursor
    cdef int64_t base, last, count, index, held_bytes
    cdef bint dense, busy
    cdef uint32_t *marks
    cdef int64_t marked
    cdef bint seek(self, int64_t offset) noexcept


cdef class Lookup:
    cdef readonly Partition log
    cdef Source source
    cdef list _batches
    cdef int64_t _generation, _held_bytes
    cdef Py_ssize_t _limit_bytes
    cdef OpenBatch _open(self, int64_t offset)
    cdef OpenBatch _find(self, int64_t offset)
    cdef Record _checked(self, int64_t offset, control_slot *slot)
    cdef Record record(self, int64_t offset)
    cpdef list read(self, offsets)
