from libc.stdint cimport int64_t

from penstock._native.delivery_states cimport DeliveryStates


cdef class Message:
    cdef readonly object queue
    cdef DeliveryStates delivery
    cdef readonly object key
    cdef readonly object value
    cdef tuple pairs
    cdef readonly int64_t offset
    cdef readonly int64_t timestamp_ms
    cdef int64_t first_ms
    cdef int receipt, failures
    cdef readonly bint settled
    cdef int accept(self) except -1
    cdef int64_t received_ns, weight  # when, and for how many this one is timed (0: it is not)
