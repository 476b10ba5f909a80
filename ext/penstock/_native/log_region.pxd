from libc.stdint cimport int64_t

from penstock._native.metrics cimport metrics_partition
from penstock._native.read_segment cimport ReadSegment
from penstock._native.region cimport Region


cdef class LogRegion(Region):
    cdef readonly ReadSegment segment
    cdef readonly int64_t next_offset
    cdef readonly int64_t next_position


cdef LogRegion region_from(
    ReadSegment segment, int64_t position, int64_t limit, int64_t offset, Py_ssize_t max_bytes, int64_t end_offset, bint entered,
    metrics_partition *metrics,
)
