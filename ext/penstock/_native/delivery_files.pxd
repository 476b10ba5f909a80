from libc.stdint cimport int64_t, uint64_t

from penstock._native.control cimport lock_handle
from penstock._native.delivery_view cimport delivery_control, delivery_view
from penstock._native.mapping cimport Mapping
from penstock._native.metrics cimport MetricsBlock, metrics_share
from penstock._native.partition cimport Partition


cdef class DeliveryFiles:
    cdef object __weakref__
    cdef delivery_view view
    cdef delivery_control *control
    cdef lock_handle lock
    cdef readonly str directory
    cdef readonly Partition log
    cdef readonly bint ordered, fresh, after_power_cut
    cdef public bint sync_each
    cdef Mapping control_map, slots_map
    cdef list maps
    cdef dict firsts  # by chunk
    cdef bint new_files
    cdef readonly MetricsBlock counters
    cdef metrics_share *metrics  # in `counters`; NULL: nothing is counted
    cdef int64_t reserved  # words below have room on the disk
    cdef list retired  # maps of chunks that nobody needs; let go of outside the lock
    cdef int _renew(self, uint64_t incarnation, bytes boot) except -1
    cdef int _reserve_ring(self, int64_t chunk) except -1
    cdef int _reserve(self, Mapping map, int64_t start, int64_t end) except -1
    cdef int _ensure(self, int64_t end, bint whole=*) except -1
    cdef int _fill(self) except -1
    cdef int _let_go(self) except -1
    cdef int _prepare(self, int64_t number) except -1
    cdef int64_t *_first(self, int64_t offset, bint make) except? NULL
    cdef int _acquire(self) except -1
