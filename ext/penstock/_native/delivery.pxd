from libc.stdint cimport int64_t, uint64_t

from penstock._native.delivery_states cimport DeliveryStates
from penstock._native.delivery_view cimport delivery_claim
from penstock._native.message cimport Message
from penstock._native.log_region cimport LogRegion
from penstock._native.records cimport Record, RecordCursor


cdef class Delivery(DeliveryStates):
    cdef object reading
    cdef RecordCursor cursor
    cdef LogRegion region
    cdef unsigned int ticks
    cdef int64_t _claim(self, delivery_claim *claims, int64_t now_ms, int64_t until_ms, int64_t wanted) except -1
    cdef int _prepare_next(self) except -1
    cdef int _count(self, delivery_claim *claims, int64_t n, list out, Py_ssize_t had, int64_t now_ms) except -1
    cdef int _note_firsts(self, delivery_claim *claims, int64_t n, int64_t now_ms, int64_t until_ms) except -1
    cdef int64_t _first_read(self, int64_t offset, uint64_t word) except -1
    cdef int _give_back(self, delivery_claim *claims, int64_t first, int64_t n) except -1
    cdef Message _read(self, queue, int64_t offset)
    cdef Record _record_at(self, int64_t offset)
