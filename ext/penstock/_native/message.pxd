from libc.stdint cimport int64_t

from penstock._native.delivery_states cimport DeliveryStates
from penstock._native.records cimport Record


cdef class Message:
    cdef Record record
    cdef readonly object queue
    cdef DeliveryStates delivery
    cdef int64_t receipt
    cdef int64_t failures
    cdef int64_t first_ms
    cdef readonly bint settled
    cdef int accept(self) except -1
    cdef int64_t received_ns, weight  # when, and for how many this one is timed (0: it is not)
