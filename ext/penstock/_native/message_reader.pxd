from libc.stdint cimport int64_t

from penstock._native.delivery_states cimport DeliveryStates
from penstock._native.format cimport record_fields
from penstock._native.log_region cimport LogRegion
from penstock._native.message cimport Message
from penstock._native.partition cimport Partition
from penstock._native.records cimport RecordCursor


cdef class MessageReader(RecordCursor):
    cdef Partition log
    cdef LogRegion region
    cdef bint sound  # the walker is where `next_offset` says; not so after an error
    cdef Message read(self, queue, DeliveryStates delivery, int64_t offset)
    cdef int _fetch(self, int64_t offset) except -1
    cdef int _reach(self, int64_t offset, record_fields *fields) except -1
    cdef int _pass_over(self, int64_t offset) except -1
    cdef void forget(self) noexcept
