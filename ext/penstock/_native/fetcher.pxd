from libc.stdint cimport int64_t

from penstock._native.metrics cimport MetricsBlock, metrics_partition
from penstock._native.records cimport RecordCursor
from penstock._native.region cimport Region
from penstock._native.words cimport CommitTable, WordTable


cdef class PartitionReader:
    cdef readonly object partition
    cdef readonly object log
    cdef readonly Region region
    cdef RecordCursor cursor
    cdef bint unread
    cdef readonly bint paused
    cdef int64_t offset
    cdef int64_t region_end
    cdef public int64_t cell  # of its committed offset; -1 without a group
    cdef public int64_t claim
    cdef object aborted
    cdef metrics_partition *metrics  # of its log; NULL: nothing is counted
    cdef int64_t counted  # records of `cursor.opened`
    cdef void count(self) noexcept
    cdef int64_t next_position(self) noexcept
    cdef int load(self, Fetcher fetcher, Py_ssize_t max_bytes) except -1
    cdef void finish(self) noexcept
    cdef void move(self, int64_t offset) noexcept


cdef class Fetcher:
    cdef readonly list _readers
    cdef RecordCursor _cursor  # that of the reader in turn while records are iterated, else None
    cdef Py_ssize_t _turn
    cdef list _undo
    cdef bint _closed, _inside, _woken, _auto_commit
    cdef public bint _committed_only  # isolation_level="read_committed"
    cdef int _busy  # calls inside one another: callbacks of a rebalance may use the consumer
    cdef unsigned long _callback_thread
    cdef WordTable _slots
    cdef int64_t *_epoch_word  # of this group member, in `_slots`; NULL without a group
    cdef int64_t _epoch, _looks
    cdef CommitTable _commits
    cdef bint _sync_commits
    cdef MetricsBlock _group_metrics
    cdef unsigned int _polls
    cdef Py_ssize_t _last_taken
    cdef readonly object _broker, _bell, _clock
    cdef double _slice_s
    cdef Py_ssize_t _fetch_max_bytes, _max_poll_records
    cdef public object _generation  # of the catalog, when the assignment was last brought up to date
    cdef object _next_blocking(self)
    cdef object _next_now(self)
    cdef PartitionReader _next_reader(self, Py_ssize_t max_bytes)
    cdef void _advance(self) noexcept
    cpdef int _refresh_if_stale(self) except -1
    cdef int _start(self) except -1
    cdef bint _rebalance_due(self) noexcept
    cdef int _collect(self, list out, Py_ssize_t limit) except -1
    cdef int _collect_batches(self, list out, Py_ssize_t budget) except -1
    cdef int _take_batches(self, PartitionReader reader, list out) except -1
    cdef list _split_region(self, PartitionReader reader)
    cdef int _observe(self, int64_t started, int64_t weight) except -1
    cdef int64_t _weight(self) noexcept
    cdef int _failed(self, bint delivered) except -1
    cdef void _rewind(self) noexcept
    cdef double _deadline(self, timeout) except? -2.0
    cdef object _wait(self, object seen, double deadline, bint heed_wakeup)
    cpdef int _check_open(self) except -1
    cpdef int _enter(self) except -1
    cpdef int _leave(self) except -1
    cdef int _release(self) except -1
