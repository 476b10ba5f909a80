from libc.stdint cimport int64_t, uint64_t

from penstock._native.delivery_intake cimport DeliveryIntake


cdef class DeliveryStates(DeliveryIntake):
    cdef public int64_t visibility_ms  # the group's; what a first lock that ran out is thought to have been
    cdef int64_t _first_received(self, int64_t offset, uint64_t word) except -1
    cdef int _keep_first(self, int64_t offset, uint64_t word) except -1
    cdef uint64_t _word(self, int64_t offset) except? 0
    cdef int accept(self, int64_t offset, int64_t receipt) except -1
    cpdef int settle(self, int64_t offset, int64_t receipt, int action, int64_t visible) except -1
    cdef bint _leads(self, int64_t offset) noexcept
    cdef object _stale(self, int64_t offset, int64_t receipt, uint64_t word)
