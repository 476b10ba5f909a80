"""One partition of a log: append a sealed batch, fetch stored batches, sync.

Thread and process safety: any number of threads and processes append and fetch; a batch is visible to all of them at
once when `append` returns. The lock is only waited for without the GIL. What is rare (rolling, mapping another segment,
recovery) is Python, in the subclass `penstock.storage.partition_log.PartitionLog`: `_refresh_writer(min_bytes)`,
`_roll(base_offset, batch_bytes)`, `_count_bytes()`, `_make_room()`, `_segment_of(offset, active)`, `_segment_after(base, active)`,
`_reopen_segment(base)`, `_map_indexes(segment)`, `_sync_segments(first, last)`, `_load_transactions()`.

Crash policy: see `control.h`.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EBUSY, EDQUOT, ENOSPC
from libc.stdint cimport INT64_MAX, int16_t, int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from penstock._native.bell cimport Bell, Bells
from penstock._native.control cimport (
    PENSTOCK_CONTROL_MAGIC,
    PENSTOCK_CONTROL_SIZE,
    PENSTOCK_CONTROL_VERSION,
    PENSTOCK_FLAG_DELETED,
    PENSTOCK_FLAG_TRANSACTIONS,
    PENSTOCK_HAVE_ROBUST,
    bell_ring,
    bell_ring_always,
    control_checksum,
    control_publish,
    control_snapshot,
    file_sync,
    lock_acquire,
    lock_handle_init,
    lock_init,
    lock_release,
    monotonic_ns,
    pending_add,
    sync_done,
    sync_gather,
    word_wait,
)
from penstock._native.control_state cimport control_state, fill_slot, slot_dict
from penstock._native.format cimport (
    ATTRIBUTE_CONTROL,
    ATTRIBUTE_TRANSACTIONAL,
    BATCH_ATTRIBUTES,
    BATCH_BASE_SEQUENCE,
    BATCH_HEADER_BYTES,
    BATCH_LAST_OFFSET_DELTA,
    BATCH_LENGTH,
    BATCH_LOG_OVERHEAD,
    BATCH_PRODUCER_EPOCH,
    BATCH_PRODUCER_ID,
    INDEX_ENTRY_BYTES,
    TIME_INDEX_ENTRY_BYTES,
    load_be16,
    load_be32,
    load_be64,
)
from penstock._native.log_region cimport LogRegion, region_from
from penstock._native.metrics cimport (
    ERROR_CONFLICT,
    ERROR_CORRUPTION,
    ERROR_DISK_FULL,
    ERROR_FENCED,
    ERROR_FULL,
    ERROR_IO,
    ERROR_OUT_OF_ORDER,
    ERROR_OUT_OF_RANGE,
    metrics_error,
    metrics_observe,
)
from penstock._native.read_segment cimport ReadSegment

from penstock._native.mapping import os_error
from penstock.errors import (
    ConcurrencyError,
    CorruptionError,
    FencedError,
    InvalidArgumentError,
    OffsetOutOfRangeError,
    OutOfOrderSequenceError,
    TopicFullError,
    UnknownTopicError,
)


cdef extern from "<errno.h>" nogil:
    int EOWNERDEAD

cdef enum:
    VISIBLE_BYTES_MAX = 64 << 20
    SYNC_SEGMENTS = -1
    FOLLOW_NS = 50_000_000  # how long a sync's leader may be dead before others notice


cdef class Partition:
    """The native half of a partition log. `Partition(topic, number, control_path, bells, bell_number)`."""

    def __init__(self, str topic not None, int number, str control_path not None, Bells bells not None, Py_ssize_t bell):
        self.topic = topic
        self.number = number
        self.control_map = Mapping(control_path, PENSTOCK_CONTROL_SIZE, True, False)
        self.sync_map = self.control_map if PENSTOCK_HAVE_ROBUST else Mapping(control_path, 0, True, False)
        self.control = <control_file *>self.control_map.data
        self.bell = Bell(bells, bell)
        memset(&self.writer, 0, sizeof(self.writer))
        self.writer.control = self.control
        self.writer.bell = self.bell.words
        self.writer.base_offset = -1
        self.writer.full_bytes = -1
        self._reset_locks()

    def _reset_locks(self):
        """Make this process's half of the locks anew (after a fork)."""
        lock_handle_init(&self.writer.lock, &self.control.writer_lock.mutex, self.control_map.fd)
        lock_handle_init(&self.sync_lock, &self.control.sync_lock.mutex, self.sync_map.fd)

    # --- append ------------------------------------------------------------------------------------------------

    cpdef int64_t append(self, batch) except -1:
        """Store one sealed batch; returns the offset of its first record.

        Raises `DiskFullError` (nothing was stored), `UnknownTopicError` (the topic was deleted).
        """
        cdef Py_buffer view
        cdef int64_t offset
        PyObject_GetBuffer(batch, &view, PyBUF_SIMPLE)
        try:
            if view.len < BATCH_HEADER_BYTES or <int64_t>load_be32(<char *>view.buf + BATCH_LENGTH) + BATCH_LOG_OVERHEAD != view.len:
                raise InvalidArgumentError(f"batch of {view.len} bytes is not one sealed record batch")
            offset = self.append_raw(<const char *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        return offset

    cdef int64_t append_raw(self, const char *batch, int64_t size, int64_t expected=-1) except -1:
        """Store a batch, on the disk where each is synced; `ConcurrencyError` unless the log ends at `expected` (-1: anywhere)."""
        cdef int64_t offset = self.store_only(batch, size, NULL, 0, expected)
        if self.writer.sync_each:
            self.sync_to(offset + <int32_t>load_be32(batch + BATCH_LAST_OFFSET_DELTA) + 1)
        return offset

    cdef int64_t store_only(self, const char *batch, int64_t size, const int64_t *fence, int64_t epoch, int64_t expected=-1) except -1:
        """Store a batch; the caller syncs, so that it knows what was stored when that fails. `FencedError` when `fence`
        is not `epoch` any more."""
        if not self.writer.sync_each:
            return self._store(batch, size, fence, epoch, expected)
        pending_add(self.control, 1)
        try:
            return self._store(batch, size, fence, epoch, expected)
        finally:
            pending_add(self.control, -1)

    cdef int store_run(self, append_batch *batches, int count, const int64_t *fence, int64_t epoch) except -1:
        """Store batches by one system call, as many as can be; how many, 0 too. The rest is for `store_only`."""
        cdef int stored
        with nogil:
            stored = writer_append_run(&self.writer, batches, count, fence, epoch)
        if stored:
            self.written = True
        return stored

    cdef int64_t _store(self, const char *batch, int64_t size, const int64_t *fence, int64_t epoch, int64_t expected) except -1:
        cdef int64_t offset
        cdef int rc = APPEND_BUSY
        cdef append_writer *w = &self.writer
        while True:
            offset = expected
            if size <= 16384:
                rc = writer_append(w, batch, size, 0, fence, epoch, &offset)
            if size > 16384 or rc == APPEND_BUSY:
                with nogil:
                    rc = writer_append(w, batch, size, 1, fence, epoch, &offset)
            if rc == APPEND_OK or rc == APPEND_DUPLICATE:
                break
            if rc == APPEND_REFRESH:
                self._refresh_writer(size)
            elif rc == APPEND_ROLL:
                self._roll(w.base_offset, size)
            elif rc == APPEND_CONFLICT:
                metrics_error(w.metrics, ERROR_CONFLICT)
                raise ConcurrencyError(
                    f"expected_offset is {expected}; {self.topic}-{self.number} ends at {offset}", actual_offset=offset
                )
            elif rc == APPEND_COUNT:
                self._count_bytes()
            elif rc == APPEND_FULL and self._make_room():
                pass
            else:
                raise self._refused(rc, batch)
            rc = APPEND_BUSY
        self.written = True
        return offset

    cdef object _refused(self, int rc, const char *batch):
        """The error for what an append returned."""
        cdef append_writer *w = &self.writer
        if rc == APPEND_DELETED:
            return UnknownTopicError(f"topic {self.topic!r} was deleted")
        if rc == APPEND_FENCED:
            metrics_error(w.metrics, ERROR_FENCED)
            return FencedError(
                f"epoch {<int16_t>load_be16(batch + BATCH_PRODUCER_EPOCH)} of producer {<int64_t>load_be64(batch + BATCH_PRODUCER_ID)} "
                "is over: its name or transactional_id was taken over, or its transaction took too long"
            )
        if rc == APPEND_FULL:
            metrics_error(w.metrics, ERROR_FULL)
            return TopicFullError(
                f"{self.topic}-{self.number} has no room for a batch of {load_be32(batch + BATCH_LENGTH) + BATCH_LOG_OVERHEAD} bytes: "
                f"retention_bytes is {w.full_bytes} and full_policy 'refuse-new'; nothing of it was stored"
            )
        if rc == APPEND_SEQUENCE:
            metrics_error(w.metrics, ERROR_OUT_OF_ORDER)
            return self._out_of_order(batch)
        metrics_error(w.metrics, ERROR_DISK_FULL if w.error in (ENOSPC, EDQUOT) else ERROR_IO)
        return os_error(w.error, self.log_map.path if self.log_map is not None else self.control_map.path, "appending to")

    # --- transactions -------------------------------------------------------------------------------------------

    cdef int _begin_transaction(self, int64_t producer_id) except -1:
        """From this end on nothing is stable, for the producer's transaction is about to store here."""
        cdef control_slot slot
        self._lock()
        try:
            self.control.flags |= PENSTOCK_FLAG_TRANSACTIONS
            control_snapshot(self.control, &slot)
            self._open_transactions.begin(producer_id, slot.log_end_offset)
        finally:
            self._unlock()
        return 0

    cdef bint _commit_transaction(self, int64_t producer_id, BatchBuilder marker) except -1:
        """Store the marker and let readers pass, at once; False when that takes more than one step."""
        cdef OpenTransactions table = self._open_transactions
        cdef int64_t offset = -1
        cdef int rc
        if self.writer.sync_each or table is None:
            return False
        self._lock()
        try:
            if table.first_offset(producer_id) < 0:
                return True  # an earlier try came this far
            rc = append_locked(&self.writer, marker.sealed, marker.sealed_size, NULL, 0, &offset)
            if rc != APPEND_OK:
                return False
            table.end(producer_id, False)
        finally:
            self._unlock()
        self.written = True
        bell_ring(self.bell.words)
        return True

    cdef object _out_of_order(self, const char *batch):
        cdef int64_t producer_id = <int64_t>load_be64(batch + BATCH_PRODUCER_ID)
        last = self.last_sequence(producer_id)
        return OutOfOrderSequenceError(
            f"the batch of producer {producer_id} begins at sequence {load_be32(batch + BATCH_BASE_SEQUENCE)}; "
            f"{self.topic}-{self.number} expects {'any' if last is None else (last + 1) & 0x7FFFFFFF}, or one of its last five batches again"
        )

    def last_sequence(self, int64_t producer_id):
        """Sequence of the last record that this producer stored, or None when it is not among those remembered here."""
        cdef control_slot slot
        cdef producer_entry *entry
        self._lock()
        try:
            control_snapshot(self.control, &slot)
            producers_enter(self.control, &slot)
            entry = producers_find(self.control, producer_id)
            return None if entry is NULL else entry.last_sequence
        finally:
            self._unlock()

    def _set_writer(self, Mapping log, Mapping index, Mapping time_index, int64_t base_offset):
        """Write to these maps from now on. Requires the writer lock (`_lock`), or that nobody else has this handle."""
        self.log_map = log
        self.index_map = index
        self.time_index_map = time_index
        self.writer.log = log.data
        self.writer.log_fd = log.fd
        self.writer.log_length = log.length
        self.writer.index = index.data
        self.writer.index_fd = index.fd
        self.writer.index_length = index.length
        self.writer.time_index = time_index.data
        self.writer.time_index_fd = time_index.fd
        self.writer.time_index_length = time_index.length
        self.writer.base_offset = base_offset

    def _clear_writer(self):
        """Let go of the writer's maps. Requires the writer lock, or that nobody else has this handle."""
        self.writer.base_offset = -1
        self.writer.log = self.writer.index = self.writer.time_index = NULL
        self.log_map = self.index_map = self.time_index_map = None

    def _set_limits(self, int64_t segment_bytes, int64_t segment_ms, int64_t full_bytes=-1):
        """Roll by the first two, and refuse what would make the partition larger than the third (-1: nothing), from now on."""
        self.writer.segment_bytes = segment_bytes
        self.writer.segment_ms = segment_ms
        self.writer.full_bytes = full_bytes

    def _set_counted(self, int64_t generation, int64_t start, int64_t bytes_before):
        """So many bytes lie between the log start and the active segment, as of that state (less than 0: the start is in
        the active segment). It counts until the segments or the start change. Requires the writer lock."""
        cdef control_file *c = self.control
        c.counted_generation = 0  # a writer that is killed in between leaves nothing half true
        c.counted_start = start
        c.counted_bytes = bytes_before
        c.counted_generation = generation + 1

    @property
    def sync_each(self):
        """Whether an append returns only once it is on the disk."""
        return bool(self.writer.sync_each)

    @sync_each.setter
    def sync_each(self, bint value):
        self.writer.sync_each = value

    def _ring(self):
        """Wake who waits for records: there are new ones, or old ones became readable."""
        bell_ring(self.bell.words)

    def _writer_base(self):
        """Base offset of the segment the writer maps, or -1."""
        return self.writer.base_offset

    def _lock(self):
        """Take the writer lock, waiting without the GIL. True when its last owner died holding it."""
        cdef int rc = lock_acquire(&self.writer.lock, 0)
        if rc == EBUSY:
            with nogil:
                rc = lock_acquire(&self.writer.lock, 1)
        if rc != 0 and rc != EOWNERDEAD:
            raise os_error(rc, self.control_map.path, "locking")
        return rc != 0

    def _unlock(self):
        """Give the writer lock back."""
        lock_release(&self.writer.lock)

    # --- state --------------------------------------------------------------------------------------------------

    def _state(self):
        """The published state as a dict (see `control_state.read_control`)."""
        cdef control_slot slot
        control_snapshot(self.control, &slot)
        return slot_dict(&slot)

    def _publish(self, dict changes):
        """Publish the state with `changes`. Requires the writer lock."""
        cdef control_slot slot
        control_snapshot(self.control, &slot)
        values = slot_dict(&slot)
        values.update(changes)
        fill_slot(&slot, values)
        assert slot.log_start_offset <= slot.log_end_offset and slot.active_base_offset <= slot.log_end_offset
        control_publish(self.control, &slot)
        bell_ring(self.bell.words)

    def _set_allocated(self, int64_t log, int64_t index, int64_t time_index):
        """Say how many bytes of the active segment's files have blocks. Requires the writer lock."""
        self.control.allocated_log = log
        self.control.allocated_index = index
        self.control.allocated_time_index = time_index

    def _allocated(self):
        """Bytes of the active log, index and time index that have blocks."""
        return self.control.allocated_log, self.control.allocated_index, self.control.allocated_time_index

    def _initialise(self, str boot_id, uint64_t incarnation, dict state, bint durable):
        """Write the control file anew: locks, one published slot, checkpoint. Requires the partition's file lock."""
        cdef control_slot slot
        cdef bytes boot = boot_id.encode("ascii")[:36]
        cdef int rc
        memset(self.control, 0, PENSTOCK_CONTROL_SIZE)
        memset(&slot, 0, sizeof(slot))
        fill_slot(&slot, state)
        rc = lock_init(&self.control.writer_lock.mutex) or lock_init(&self.control.sync_lock.mutex)
        if rc:
            raise os_error(rc, self.control_map.path, "making the locks of")
        memcpy(self.control.boot_id, <char *>boot, len(boot))
        control_publish(self.control, &slot)
        self.control.version = PENSTOCK_CONTROL_VERSION
        self.control.incarnation = incarnation
        if durable:
            self._write_checkpoint(&slot)
        memcpy(self.control.magic, PENSTOCK_CONTROL_MAGIC, 8)
        self._reset_locks()

    def _read_control(self):
        """See `control_state.read_control`; may be asked before `_initialise`."""
        return control_state(self.control_map)

    def _renew(self, uint64_t incarnation):
        """All processes died but the machine did not: keep the state, make the locks anew."""
        cdef int rc = lock_init(&self.control.writer_lock.mutex) or lock_init(&self.control.sync_lock.mutex)
        if rc:
            raise os_error(rc, self.control_map.path, "making the locks of")
        self.control.incarnation = incarnation
        self.control.pending_appends = 0
        self.control.counted_generation = 0
        self._reset_locks()

    @property
    def incarnation(self):
        """The opening of the directory for which this control file was last made ready; 0 when never."""
        return self.control.incarnation if memcmp(self.control.magic, PENSTOCK_CONTROL_MAGIC, 8) == 0 else 0

    def _mark_deleted(self):
        """Every process that has this partition open gets `UnknownTopicError` from now on. Requires the writer lock."""
        self.control.flags |= PENSTOCK_FLAG_DELETED
        bell_ring_always(self.bell.words)

    @property
    def deleted(self):
        """Whether the topic was deleted while this handle was open."""
        return bool(self.control.flags & PENSTOCK_FLAG_DELETED)

    @property
    def log_end_offset(self):
        """The offset the next record will get."""
        cdef control_slot slot
        control_snapshot(self.control, &slot)
        return slot.log_end_offset

    @property
    def log_start_offset(self):
        """The first offset that can be read."""
        cdef control_slot slot
        control_snapshot(self.control, &slot)
        return slot.log_start_offset

    @property
    def last_stable_offset(self):
        """Everything below is decided: committed, aborted, or never was in a transaction."""
        cdef control_slot slot
        control_snapshot(self.control, &slot)  # first: a transaction that is not seen below begins at or after this end
        if self._open_transactions is None:
            if not self.control.flags & PENSTOCK_FLAG_TRANSACTIONS:
                return slot.log_end_offset
            self._load_transactions()
        return self._open_transactions.least(slot.log_end_offset)

    def next_visible(self, int64_t offset, int64_t end, aborted=None):
        """The first offset from `offset` on, below `end`, of a batch that is no marker and not in `aborted`; else `end`.

        Looks at headers only, of at most 64 MiB: what is beyond counts as visible.
        """
        cdef LogRegion region = None
        cdef const char *data
        cdef int64_t base, seen = 0
        cdef int attributes
        if not self.control.flags & PENSTOCK_FLAG_TRANSACTIONS:
            return offset
        while offset < end and seen < VISIBLE_BYTES_MAX:
            region = self.fetch(offset, 1 << 20, region, end)
            if region is None:
                return end
            seen += region.size
            data = region.data
            while data < region.data + region.size:
                attributes = <int16_t>load_be16(data + BATCH_ATTRIBUTES)
                base = <int64_t>load_be64(data)
                if not attributes & ATTRIBUTE_CONTROL and not (
                    aborted is not None and attributes & ATTRIBUTE_TRANSACTIONAL
                    and (<int64_t>load_be64(data + BATCH_PRODUCER_ID), base) in aborted
                ):
                    return min(max(offset, base), end)
                data += <int64_t><int32_t>load_be32(data + BATCH_LENGTH) + BATCH_LOG_OVERHEAD
            offset = region.next_offset
        return min(offset, end)

    def _mark_transactional(self):
        """Every process looks for open transactions from now on."""
        self.control.flags |= PENSTOCK_FLAG_TRANSACTIONS

    @property
    def synced_offset(self):
        """Every record below was on the disk when this was read."""
        return self.control.synced_offset

    # --- sync ---------------------------------------------------------------------------------------------------

    def sync_to(self, int64_t offset):
        """Return once every record below `offset` is on the disk. Callers in all threads and processes share one fsync:
        one of them leads, the others sleep until it is done (woken together; a lock would wake them one after another)."""
        cdef int rc = 0
        cdef control_slot slot
        cdef Mapping log = self.log_map
        cdef int fd = -1 if log is None else log.fd
        cdef int64_t base = self.writer.base_offset
        cdef int64_t started
        if self.control.synced_offset >= offset:
            return
        with nogil:
            rc = self._lead_or_follow(offset, fd, base)
        if rc == SYNC_SEGMENTS:
            try:
                control_snapshot(self.control, &slot)
                started = monotonic_ns()
                self._sync_segments(self.control.synced_offset, slot.active_base_offset)
                self._write_checkpoint(&slot)
                self._count_sync(monotonic_ns() - started)
            finally:
                lock_release(&self.sync_lock)
                sync_done(self.control)
        elif rc:
            metrics_error(self.writer.metrics, ERROR_IO)
            raise os_error(rc, self.control_map.path if log is None else log.path, "syncing")

    cdef void _count_sync(self, int64_t took_ns) noexcept nogil:
        """Requires the sync lock."""
        if self.writer.metrics != NULL:
            self.writer.metrics.syncs += 1
            metrics_observe(&self.writer.metrics.sync_ns, took_ns, 1)

    cdef int _lead_or_follow(self, int64_t offset, int fd, int64_t base) noexcept nogil:
        """0 once synced, errno, or SYNC_SEGMENTS: the lock is held and more than the file `fd` at `base` has to be synced."""
        cdef control_file *control = self.control
        cdef control_slot slot
        cdef uint32_t seen
        cdef int64_t started, group
        cdef int rc
        while control.synced_offset < offset:
            seen = control.sync_word
            rc = lock_acquire(&self.sync_lock, 0)
            if rc == EBUSY:
                if control.synced_offset < offset:
                    word_wait(&control.sync_word, seen, FOLLOW_NS)
                continue
            if rc != 0 and rc != EOWNERDEAD:
                return rc
            rc = 0
            if control.synced_offset < offset:
                sync_gather(control)
                control_snapshot(control, &slot)
                if slot.active_base_offset != base or control.synced_offset < base:
                    return SYNC_SEGMENTS
                started = monotonic_ns()
                group = slot.log_end_offset - control.synced_offset
                rc = file_sync(fd)
                if rc == 0:
                    self._write_checkpoint(&slot)
                    control.last_sync_ns = monotonic_ns() - started
                    self._count_sync(control.last_sync_ns)
                    control.last_group = max(group, control.last_group - 1)  # one small group is no trend
            lock_release(&self.sync_lock)
            sync_done(control)
            if rc:
                return rc
        return 0

    cdef void _write_checkpoint(self, control_slot *slot) noexcept nogil:
        cdef int older = 0
        if self.control.checkpoints[0].value.slot.log_end_offset > self.control.checkpoints[1].value.slot.log_end_offset:
            older = 1
        self.control.checkpoints[older].value.checksum = 0
        self.control.checkpoints[older].value.slot = slot[0]
        self.control.checkpoints[older].value.checksum = control_checksum(slot)
        self.control.synced_offset = slot.log_end_offset

    # --- fetch --------------------------------------------------------------------------------------------------

    cpdef LogRegion fetch(self, int64_t offset, Py_ssize_t max_bytes, LogRegion after=None, int64_t until=INT64_MAX):
        """Whole batches from the one that holds `offset` on, up to `max_bytes` (at least one); None at the log end.

        `after`, the region fetched before, makes reading on O(1). `until`: as if the log ended at that offset. Raises `OffsetOutOfRangeError`, `CorruptionError`,
        `UnknownTopicError`.
        """
        cdef control_slot slot
        cdef ReadSegment segment
        cdef int64_t position, limit
        cdef bint entered = False
        control_snapshot(self.control, &slot)
        if self.control.flags & PENSTOCK_FLAG_DELETED:
            raise UnknownTopicError(f"topic {self.topic!r} was deleted")
        if offset == slot.log_end_offset or until <= offset <= slot.log_end_offset:
            return None
        if offset < slot.log_start_offset or offset > slot.log_end_offset:
            metrics_error(self.writer.metrics, ERROR_OUT_OF_RANGE)
            raise OffsetOutOfRangeError(
                f"offset {offset} of {self.topic}-{self.number} is not in the log: "
                f"allowed is {slot.log_start_offset} to {slot.log_end_offset}"
            )
        if after is not None and after.next_offset == offset:
            segment = after.segment
            position = after.next_position
            entered = True
        else:
            segment = self._segment_of(offset, slot.active_base_offset)
            position = 0
            if offset != segment.base_offset:
                position = segment.first_position(offset, self._entries(segment, &slot, INDEX_ENTRY_BYTES))
        if segment.base_offset == slot.active_base_offset and slot.end_position > segment.log.length:
            segment = self._reopen_segment(segment.base_offset)
        while True:
            limit = self._limit(segment, &slot)
            if position < limit:
                return region_from(
                    segment, position, limit, offset, max_bytes, min(slot.log_end_offset, until), entered, self.writer.metrics
                )
            following = self._segment_after(segment.base_offset, slot.active_base_offset)
            if following is None:
                metrics_error(self.writer.metrics, ERROR_CORRUPTION)
                raise CorruptionError("the log ends before its published end", segment.log.path, position, f"offset {offset}", "end of file")
            segment = following
            position = 0

    cdef int64_t _limit(self, ReadSegment segment, control_slot *slot) except -1:
        cdef int64_t size
        if segment.base_offset == slot.active_base_offset:
            return slot.end_position
        if segment.sealed_size < 0:
            size = segment.log.file_size()
            segment.sealed_size = min(size, segment.log.length)
        return segment.sealed_size

    cdef int64_t _entries(self, ReadSegment segment, control_slot *slot, int width) except -1:
        cdef Mapping index
        if not segment.indexed:
            self._map_indexes(segment)
        index = segment.index if width == INDEX_ENTRY_BYTES else segment.time_index
        if index is None:
            return 0
        if segment.base_offset == slot.active_base_offset:
            return slot.index_entries if width == INDEX_ENTRY_BYTES else slot.time_index_entries
        return min(index.length, index.file_size()) // width

    def _index_entries(self, ReadSegment segment not None):
        """Number of offset index entries of `segment` that may be used now."""
        cdef control_slot slot
        control_snapshot(self.control, &slot)
        return self._entries(segment, &slot, INDEX_ENTRY_BYTES)

    def _time_entries(self, ReadSegment segment not None):
        """Number of time index entries of `segment` that may be used now."""
        cdef control_slot slot
        control_snapshot(self.control, &slot)
        return self._entries(segment, &slot, TIME_INDEX_ENTRY_BYTES)


def begin_transactions(list logs not None, int64_t producer_id):
    """The producer's transaction is about to store in these partitions."""
    cdef Partition log
    for item in logs:
        log = item
        if log._open_transactions is None:
            log._load_transactions()
        log._begin_transaction(producer_id)
        if log.writer.sync_each:
            log._open_transactions.sync()


def commit_transactions(list logs not None, int64_t producer_id, BatchBuilder marker not None):
    """Store the marker in these partitions and let readers pass; returns in how many, the rest takes more than one step."""
    cdef Partition log
    cdef Py_ssize_t done = 0
    for item in logs:
        log = item
        if not log._commit_transaction(producer_id, marker):
            break
        done += 1
    return done
