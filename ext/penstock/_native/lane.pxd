from libc.stdint cimport int32_t, int64_t, uint64_t

from penstock._native.builder cimport BatchBuilder
from penstock._native.partition cimport Partition
from penstock._native.records cimport Source


cdef class Waiting:
    cdef BatchBuilder builder
    cdef list callbacks
    cdef bint ready
    cdef int64_t offset  # where it was stored, by a try that failed afterwards; else -1


cdef class Lane:
    cdef readonly Source source
    cdef readonly Partition log
    cdef readonly object waiting
    cdef readonly object lock
    cdef BatchBuilder builder
    cdef list callbacks
    cdef bint gathering  # full batches wait for more, to be stored together
    cdef readonly double began
    cdef public int32_t sequence  # of the next record (KIP-98)
    cdef public bint enlisted  # in the open transaction
    cdef int retire(self) except -1
    cdef void saved(self, BatchBuilder builder) noexcept


cdef class TopicLanes:
    cdef readonly str name
    cdef readonly object config
    cdef readonly list lanes
    cdef readonly int32_t partitions
    cdef readonly int64_t max_message_bytes
    cdef readonly int codec
    cdef readonly bint log_append_time
    cdef readonly bint keyed  # a compacted topic: a record needs a key
    cdef int32_t sticky
    cdef uint64_t seed
    cdef int number_on(self, TopicLanes before) except -1
    cdef int32_t switch(self) noexcept
    cdef int32_t choose(self, partition, const char *key, Py_ssize_t key_length) except -1


cdef int64_t system_time_ms() noexcept nogil
cdef int key_missing(str topic) except -1
cdef int too_large(Py_ssize_t size, TopicLanes lanes) except -1
cdef int64_t checked_timestamp(timestamp_ms) except -1
cdef int open_view(item, Py_buffer *view, str name) except -1
