from cpython.pythread cimport PyThread_type_lock
from libc.stdint cimport int64_t, uint64_t

from penstock._native.delivery_states cimport DeliveryStates
from penstock._native.delivery_view cimport delivery_claim
from penstock._native.message_reader cimport MessageReader


cdef class Delivery(DeliveryStates):
    cdef PyThread_type_lock reading
    cdef MessageReader reader
    cdef unsigned int ticks
    cdef int _renew_reading(self) except -1
    cdef int _begin_reading(self) except -1
    cdef int64_t _claim(self, delivery_claim *claims, int64_t now_ms, int64_t until_ms, int64_t wanted) except -1
    cdef int _prepare_next(self) except -1
    cdef int _count(self, delivery_claim *claims, int64_t n, list out, Py_ssize_t had, int64_t now_ms) except -1
    cdef int _note_firsts(self, delivery_claim *claims, int64_t n, int64_t now_ms, int64_t until_ms) except -1
    cdef int64_t _first_read(self, int64_t offset, uint64_t word) except -1
    cdef int _give_back(self, delivery_claim *claims, int64_t first, int64_t n) except -1
    cdef int _note_time(self, queue, int64_t now_ms) except -1
    cdef list _hand_out(self, queue, list out, delivery_claim *claims, int64_t n, int64_t until_ms, int64_t failures_max)
    cdef int _refuse(self, delivery_claim *claim, int64_t until_ms, int64_t failures_max) except -1
