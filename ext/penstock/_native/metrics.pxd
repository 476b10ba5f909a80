from libc.stdint cimport int64_t

from penstock._native.mapping cimport Mapping


cdef extern from "metrics.h" nogil:
    enum:
        METRICS_SLOT_BYTES
        METRICS_SLOTS
        METRICS_GROWTH
        METRICS_NAMES
        METRICS_BUCKETS
        METRICS_SAMPLE
        METRICS_FREE
        METRICS_USED
        METRICS_RETIRED
        METRICS_PARTITION
        METRICS_SHARE
        METRICS_GROUP
        ERROR_DISK_FULL
        ERROR_IO
        ERROR_CORRUPTION
        ERROR_OUT_OF_RANGE
        ERROR_FENCED
        ERROR_OUT_OF_ORDER
        ERROR_TOO_LARGE
        ERROR_CONFLICT
        ERROR_FULL
    const char *METRICS_MAGIC

    ctypedef struct metrics_histogram:
        int64_t sum
        int64_t buckets[272]

    ctypedef struct metrics_head:
        int64_t state
        int64_t kind
        int64_t number
        int64_t created_ms
        int64_t retired_ms
        int64_t topic_bytes
        int64_t group_bytes
        char names[1216]

    ctypedef struct metrics_partition:
        metrics_head head
        int64_t seen_end
        int64_t records_in
        int64_t bytes_in
        int64_t batches_in
        int64_t records_out
        int64_t bytes_out
        int64_t fetches
        int64_t polls
        int64_t syncs
        int64_t saved_bytes
        int64_t errors[16]
        metrics_histogram append_ns
        metrics_histogram poll_ns
        metrics_histogram sync_ns
        metrics_histogram batch_records
        metrics_histogram batch_bytes

    ctypedef struct metrics_share:
        metrics_head head
        int64_t received
        int64_t redelivered
        int64_t timed_out
        int64_t receives
        int64_t acknowledged
        int64_t negative
        int64_t released
        int64_t extended
        int64_t dead
        int64_t expired
        int64_t dropped
        int64_t stale
        metrics_histogram wait_ms
        metrics_histogram processing_us
        metrics_histogram receive_records

    ctypedef struct metrics_group:
        metrics_head head
        int64_t commits
        int64_t refused

    ctypedef struct metrics_file_head:
        char magic[8]
        int64_t used

    int metrics_bucket(int64_t value)
    void metrics_add(int64_t *counter, int64_t n)
    void metrics_observe(metrics_histogram *h, int64_t value, int64_t weight)
    void metrics_observe_shared(metrics_histogram *h, int64_t value, int64_t weight)
    void metrics_error(metrics_partition *m, int kind)


cdef class MetricsFile:
    cdef readonly Mapping map
    cdef metrics_file_head *head
    cdef metrics_head *slot(self, int64_t number) noexcept


cdef class MetricsBlock:
    cdef MetricsFile file
    cdef void *data
    cdef readonly int64_t number
