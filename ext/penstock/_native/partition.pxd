from libc.stdint cimport int32_t, int64_t, uint32_t

from penstock._native.bell cimport Bell
from penstock._native.builder cimport BatchBuilder
from penstock._native.control cimport bell_word, control_file, control_slot, lock_handle
from penstock._native.log_region cimport LogRegion
from penstock._native.mapping cimport Mapping
from penstock._native.metrics cimport MetricsBlock, metrics_partition
from penstock._native.read_segment cimport ReadSegment
from penstock._native.words cimport OpenTransactions


cdef extern from "append.h" nogil:
    ctypedef struct append_writer:
        control_file *control
        lock_handle lock
        bell_word *bell
        char *log
        char *index
        char *time_index
        int log_fd
        int index_fd
        int time_index_fd
        int64_t base_offset
        int64_t log_length
        int64_t index_length
        int64_t time_index_length
        int64_t segment_bytes
        int64_t segment_ms
        int64_t full_bytes
        int64_t dead_owners
        int sync_each
        int small_run
        int error
        metrics_partition *metrics

    enum:
        APPEND_OK
        APPEND_BUSY
        APPEND_REFRESH
        APPEND_ROLL
        APPEND_DELETED
        APPEND_ERROR
        APPEND_FENCED
        APPEND_SEQUENCE
        APPEND_DUPLICATE
        APPEND_CONFLICT
        APPEND_FULL
        APPEND_COUNT

    int append_locked(
        append_writer *w, const char *batch, int64_t size, const int64_t *fence, int64_t epoch, int64_t *base_offset,
    )
    int writer_append(
        append_writer *w, const char *batch, int64_t size, int wait, const int64_t *fence, int64_t epoch, int64_t *base_offset,
    )
    enum:
        APPEND_RUN_MAX

    ctypedef struct append_batch:
        const char *data
        int64_t size
        int64_t offset

    int writer_append_run(append_writer *w, append_batch *batches, int count, const int64_t *fence, int64_t epoch)


cdef extern from "producers.h" nogil:
    ctypedef struct producer_entry:
        int32_t epoch
        uint32_t last_sequence

    producer_entry *producers_find(control_file *c, int64_t producer_id)
    void producers_enter(control_file *c, const control_slot *s)


cdef class Partition:
    cdef append_writer writer
    cdef control_file *control
    cdef Mapping control_map
    cdef Mapping sync_map
    cdef lock_handle sync_lock
    cdef Bell bell
    cdef Mapping log_map
    cdef Mapping index_map
    cdef Mapping time_index_map
    cdef readonly str topic
    cdef readonly int number
    cdef readonly bint written
    cdef MetricsBlock metrics_block  # keeps what `writer.metrics` points to
    cdef public OpenTransactions _open_transactions
    cpdef int64_t append(self, batch) except -1
    cdef int _begin_transaction(self, int64_t producer_id) except -1
    cdef bint _commit_transaction(self, int64_t producer_id, BatchBuilder marker) except -1
    cdef object _refused(self, int rc, const char *batch)
    cdef object _out_of_order(self, const char *batch)
    cdef int _lead_or_follow(self, int64_t offset, int fd, int64_t base) noexcept nogil
    cdef int64_t _store(self, const char *batch, int64_t size, const int64_t *fence, int64_t epoch, int64_t expected) except -1
    cdef int store_run(self, append_batch *batches, int count, const int64_t *fence, int64_t epoch) except -1
    cdef int64_t store_only(self, const char *batch, int64_t size, const int64_t *fence, int64_t epoch, int64_t expected=*) except -1
    cdef int64_t append_raw(self, const char *batch, int64_t size, int64_t expected=*) except -1
    cpdef LogRegion fetch(self, int64_t offset, Py_ssize_t max_bytes, LogRegion after=*, int64_t until=*)
    cdef void _count_sync(self, int64_t took_ns) noexcept nogil
    cdef void _write_checkpoint(self, control_slot *slot) noexcept nogil
    cdef int64_t _limit(self, ReadSegment segment, control_slot *slot) except -1
    cdef int64_t _entries(self, ReadSegment segment, control_slot *slot, int width) except -1
