"""The native half of the consumer: takes regions of several partitions in turn and delivers their records.

Invariant: the position of a partition is the offset of its next undelivered record, after every call, whichever mix of
iteration, `poll`, `poll_batches` and seeks came before, and whether the call returned or raised.
Order: the records of a partition come in offset order; partitions take turns region by region, so that none starves.
Thread safety: one thread at a time; a second one gets `LockedError` at once. `wakeup` and `close` may come from any thread.
Policy (assignment, where to start, what to do out of range) is Python, in the subclass `penstock.streams.consumer.Consumer`:
`_refresh()`, `_rebalance()`, `_subscribed()`, `_out_of_range(reader)`, `_commit_given(offsets)`, `_split(region, topic, partition, from_offset, limit_bytes, aborted)`.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport INFINITY
from libc.stdint cimport INT64_MAX, int64_t

from penstock._native.control cimport monotonic_ns
from penstock._native.metrics cimport (
    METRICS_SAMPLE,
    MetricsBlock,
    metrics_add,
    metrics_group,
    metrics_observe_shared,
)
from penstock._native.partition cimport Partition
from penstock._native.records cimport RecordCursor
from penstock._native.region cimport Region
from penstock._native.words cimport CommitTable, WordTable

from threading import get_ident as _get_ident

from penstock.clock import SystemClock
from penstock.errors import (
    ClosedError,
    CorruptionError,
    FencedError,
    InvalidArgumentError,
    InvalidTypeError,
    LockedError,
    OffsetOutOfRangeError,
    UnknownTopicError,
)


cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        void *tp_iternext

cdef enum:
    TIMED_RECORDS = 64  # polls of as many records are timed each; of smaller ones, some

cdef double WAIT_SLICE_S = 1.0  # how long a blocked read may miss what rings no bell
cdef double VIRTUAL_SLICE_S = 0.01  # how often a clock that is not the machine's is looked at
cdef double TIMEOUT_MAX_S = 1e9


cdef class PartitionReader:
    """Where a consumer is in one partition. `PartitionReader(partition, log, offset, decompressed_limit_bytes)`.

    `offset` -1 means not yet known. A batch that decompresses to more than the limit is a `CorruptionError`.

    Keeps the region fetched last, so that it is resumed by the next call and reading on needs no search.
    """

    def __init__(self, partition not None, log not None, int64_t offset, Py_ssize_t decompressed_limit_bytes):
        self.partition = partition
        self.log = log
        self.cursor = RecordCursor(partition[0], partition[1])
        self.cursor.decompressed_limit_bytes = decompressed_limit_bytes
        self.offset = offset
        self.region_end = -1
        self.cell = self.claim = -1
        self.metrics = (<Partition>log).writer.metrics if isinstance(log, Partition) else NULL

    @property
    def position(self):
        """Offset of the next undelivered record; -1 when neither a seek nor a policy has set one."""
        return self.next_position()

    cdef int64_t next_position(self) noexcept:
        return self.cursor.next_offset if self.unread else self.offset

    cdef void move(self, int64_t offset) noexcept:
        """Continue at `offset`; what was fetched and is not needed there is dropped."""
        self.offset = offset
        self.unread = False
        if self.region_end != offset:
            self.region = None
            self.region_end = -1

    cdef void count(self) noexcept:
        """Count the records that were delivered since."""
        cdef int64_t delivered = self.cursor.opened - self.cursor.left
        if self.metrics != NULL and delivered != self.counted:
            metrics_add(&self.metrics.records_out, delivered - self.counted)
        self.counted = delivered

    cdef void finish(self) noexcept:
        self.count()
        # the region may end in offsets without a record (compaction, control batches): its own end counts
        self.unread = False
        self.offset = self.region_end

    cdef int load(self, Fetcher fetcher, Py_ssize_t max_bytes) except -1:
        """1 when there are undelivered records, fetching if need be; 0 at the end of the log or when paused."""
        cdef Region region
        cdef int64_t until
        if self.paused:
            return 0
        if self.unread:
            return 1
        while True:
            until = self.log.last_stable_offset if fetcher._committed_only else self.log.log_end_offset
            if self.offset == until:
                return 0
            if self.offset < 0:
                fetcher._out_of_range(self)
                continue
            try:
                region = self.log.fetch(
                    self.offset, max_bytes, self.region if self.region_end == self.offset else None,
                    until if fetcher._committed_only else INT64_MAX,
                )
            except OffsetOutOfRangeError:
                fetcher._out_of_range(self)
                continue
            except UnknownTopicError:
                if fetcher._subscribed():
                    return 0  # the catalog is about to say that the topic was deleted
                raise
            if region is None:
                return 0
            if fetcher._committed_only:
                self.aborted = self.cursor.aborted = self.log.aborted_in(self.offset, (<object>region).next_offset)
            self.count()
            if self.metrics != NULL:
                metrics_add(&self.metrics.fetches, 1)
                metrics_add(&self.metrics.bytes_out, region.size)
            self.cursor.feed(region, self.offset)
            self.region_end = max(<int64_t>(<object>region).next_offset, self.offset + 1)
            self.region = region
            self.unread = True
            return 1


cdef class Fetcher:
    """Reads assigned partitions of a broker in turn: `poll`, `poll_batches`, iteration.

    `Fetcher(broker, fetch_max_bytes, max_poll_records)`. Not for direct use: see `penstock.streams.consumer.Consumer`.
    """

    def __init__(self, broker not None, Py_ssize_t fetch_max_bytes, Py_ssize_t max_poll_records):
        self._readers = []
        self._undo = []
        self._broker = broker
        self._bell = broker._bell
        self._clock = broker.clock
        self._slice_s = WAIT_SLICE_S if isinstance(self._clock, SystemClock) else VIRTUAL_SLICE_S
        self._fetch_max_bytes = fetch_max_bytes
        self._last_taken = TIMED_RECORDS
        self._max_poll_records = max_poll_records
        self._sync_commits = broker.fsync == "always"

    # --- delivering ----------------------------------------------------------------------------------------------

    def __iter__(self):
        self._check_open()
        return self

    def __next__(self):
        cdef object record
        cdef RecordCursor cursor = self._cursor
        # Inside an open batch nothing lets go of the GIL, so no other thread can come in between. An error leaves
        # `_inside` set, for `_start` to see: a handler here would cost every record.
        if cursor is not None and cursor.left > 0 and not (self._busy or self._inside or self._rebalance_due()):
            self._inside = True
            record = cursor._advance()
            self._inside = False
            if record is not None:
                return record
        if self._closed:
            self._release()
            raise StopIteration
        self._enter()
        try:
            record = self._next_blocking()
        finally:
            self._leave()
        if record is None:
            raise StopIteration
        return record

    def _next_ready(self):
        """The next record if there is one now, else None. For callers that wait in their own way."""
        cdef RecordCursor cursor = self._cursor
        if cursor is not None and cursor.left > 0 and not (self._busy or self._inside or self._rebalance_due()):
            self._inside = True
            record = cursor._advance()
            self._inside = False
            if record is not None:
                return record
        self._enter()
        try:
            return self._next_now()
        finally:
            self._leave()

    cdef object _next_blocking(self):
        """The next record, however long it takes; None once closed."""
        cdef object record, seen = None
        while not self._closed:
            record = self._next_now()
            if record is not None:
                return record
            seen = self._wait(seen, INFINITY, False)
        return None

    cdef object _next_now(self):
        """The next record, None when there is none now. `_cursor` is where it came from."""
        cdef object record
        cdef PartitionReader reader
        while not self._closed:
            try:
                if self._cursor is not None and not self._inside and not self._rebalance_due():
                    reader = self._readers[self._turn]  # in the middle of its region
                else:
                    self._start()
                    reader = self._next_reader(self._fetch_max_bytes)
                if reader is not None:
                    record = reader.cursor._advance()
                    if record is not None:
                        self._cursor = reader.cursor
                        if reader.cursor.opened - reader.cursor.left - reader.counted >= TIMED_RECORDS:
                            reader.count()
                        return record
                    reader.finish()
                    self._cursor = None
                    self._advance()
                    continue
            except BaseException:
                self._failed(False)
                raise
            return None
        return None

    def poll(self, max_records=None, timeout=1.0):
        """Up to `max_records` records (default: the consumer's `max_poll_records`), [] when none came in time.

        `timeout` in seconds (default 1; 0 = do not wait, None = for ever). Returns as soon as there is any record.
        Raises what reading raises (`CorruptionError`, `OffsetOutOfRangeError`, `UnknownTopicError`), `ClosedError`,
        `LockedError` (in use by another thread).
        """
        cdef Py_ssize_t limit = _positive("max_records", max_records, self._max_poll_records)
        cdef list out = []
        cdef object seen = None
        cdef double deadline
        self._enter()
        try:
            deadline = self._deadline(timeout)
            while True:
                self._collect(out, limit)
                if out:
                    return out
                seen = self._wait(seen, deadline, True)
                if seen is None:
                    return out
        finally:
            self._leave()

    def poll_batches(self, timeout=1.0, max_bytes=None):
        """Up to as many fetches as there are partitions, as a list of `RecordBatch`, [] when none came in time.

        `timeout` as for `poll`. `max_bytes` bounds the stored bytes of all of them (at least one batch comes; default:
        `fetch_max_bytes` for each fetch). Raises what `poll` raises.
        """
        cdef Py_ssize_t budget = _positive("max_bytes", max_bytes, -1)
        cdef list out = []
        cdef object seen = None
        cdef double deadline
        self._enter()
        try:
            deadline = self._deadline(timeout)
            while True:
                while self._collect_batches(out, budget) and not out:
                    pass  # there was data, but nothing in it for the reader: what follows may be
                if out:
                    return out
                seen = self._wait(seen, deadline, True)
                if seen is None:
                    return out
        finally:
            self._leave()

    cdef int _collect(self, list out, Py_ssize_t limit) except -1:
        cdef PartitionReader reader
        cdef Py_ssize_t wanted
        cdef Py_ssize_t taken
        cdef int64_t weight, started
        try:
            self._start()
            weight = self._weight()
            started = monotonic_ns() if weight else 0
            while len(out) < limit:
                reader = self._next_reader(self._fetch_max_bytes)
                if reader is None:
                    break
                self._undo.append((reader, reader.next_position()))
                wanted = limit - len(out)
                taken = reader.cursor.take(out, wanted)
                reader.count()
                if taken < wanted:
                    reader.finish()
                    self._advance()
            if out:
                self._last_taken = len(out)
                self._observe(started, weight)
            self._undo.clear()
        except Exception:
            self._failed(len(out) > 0)
            if not out:
                raise
        except BaseException:
            self._rewind()
            raise
        return 0

    cdef int _collect_batches(self, list out, Py_ssize_t budget) except -1:
        """Take a region of each reader; whether there was any."""
        cdef PartitionReader reader
        cdef Py_ssize_t visited, left = budget
        cdef bint any = False
        cdef int64_t started
        try:
            self._start()
            started = monotonic_ns()
            for visited in range(len(self._readers)):
                if budget > 0:
                    reader = self._next_reader(min(left, self._fetch_max_bytes))
                    if reader is not None and reader.region.size > left:
                        reader.move(reader.next_position())  # kept from a larger fetch: fetch again what fits
                        reader.load(self, min(left, self._fetch_max_bytes))
                        if out and reader.region.size > left:
                            break
                else:
                    reader = self._next_reader(self._fetch_max_bytes)
                if reader is None:
                    break
                left -= reader.region.size
                any = True
                self._take_batches(reader, out)
                self._advance()
                if budget > 0 and left <= 0:
                    break
            if any:
                self._observe(started, 1)
            self._undo.clear()
        except Exception:
            self._failed(len(out) > 0)
            if not out:
                raise
        except BaseException:
            self._rewind()
            raise
        return any

    cdef int _take_batches(self, PartitionReader reader, list out) except -1:
        cdef int64_t position = reader.next_position()
        cdef Py_ssize_t had = len(out)
        self._undo.append((reader, position))
        try:
            out += self._split_region(reader)
        except CorruptionError:
            # the whole region is refused; the good batches before the bad one are still to be delivered
            reader.move(position)
            if not reader.load(self, 1):
                return 0
            out += self._split_region(reader)
        reader.finish()
        if reader.metrics != NULL:
            for batch in out[had:]:
                metrics_add(&reader.metrics.records_out, batch.count)
        return 0

    cdef int64_t _weight(self) noexcept:
        """What the time of this poll counts for; 0: it is not timed."""
        self._polls += 1
        if self._last_taken >= TIMED_RECORDS:
            return 1
        return METRICS_SAMPLE if self._polls % METRICS_SAMPLE == 0 else 0

    cdef int _observe(self, int64_t started, int64_t weight) except -1:
        """A poll gave something, the last of it by the reader that was noted last."""
        cdef PartitionReader reader = self._undo[len(self._undo) - 1][0]
        if reader.metrics != NULL:
            metrics_add(&reader.metrics.polls, 1)
            if weight:
                metrics_observe_shared(&reader.metrics.poll_ns, monotonic_ns() - started, weight)
        return 0

    cdef list _split_region(self, PartitionReader reader):
        cdef str topic = reader.partition[0]
        cdef int partition = reader.partition[1]
        return self._split(reader.region, topic, partition, reader.next_position(), reader.cursor.decompressed_limit_bytes, reader.aborted)

    # --- turns ---------------------------------------------------------------------------------------------------

    cdef PartitionReader _next_reader(self, Py_ssize_t max_bytes):
        """The reader in turn that has undelivered records, or None."""
        cdef Py_ssize_t step
        cdef PartitionReader reader
        for step in range(len(self._readers)):
            reader = self._readers[self._turn]
            if reader.load(self, max_bytes):
                return reader
            self._advance()
        return None

    cdef void _advance(self) noexcept:
        self._turn += 1
        if self._turn >= len(self._readers):
            self._turn = 0

    cpdef int _refresh_if_stale(self) except -1:
        """Bring the assignment up to date when the catalog changed since."""
        cdef object generation = self._broker.catalog_generation
        if generation != self._generation:
            self._refresh()
            self._generation = generation
        return 0

    cdef int _start(self) except -1:
        """What comes before every look for records."""
        self._cursor = None
        self._looks += 1
        if self._inside:
            self._failed(False)
        if self._auto_commit and self._commits is not None:
            self._commit_positions()  # what was delivered before this call was dealt with
        if self._rebalance_due():
            self._rebalance()
        self._refresh_if_stale()
        if not self._readers and not self._subscribed():
            raise InvalidArgumentError("nothing is assigned: name topics when making the consumer, or call assign")
        return 0

    # --- group -----------------------------------------------------------------------------------------------------

    cdef bint _rebalance_due(self) noexcept:
        return self._epoch_word != NULL and self._epoch_word[0] != self._epoch

    def _take_part(self, WordTable slots, int64_t word, int64_t epoch):
        """Call `_rebalance` whenever the word is not `epoch`; without `slots`, never again."""
        self._epoch_word = NULL
        self._slots = slots
        self._epoch = epoch
        if slots is not None:
            slots.reserve(word + 1)
            self._epoch_word = slots.at(word)

    def _commit_to(self, CommitTable commits, bint auto_commit, MetricsBlock counters=None):
        """Commit positions there, by each reader's `cell` and `claim`, and count it."""
        self._group_metrics = counters
        self._commits = commits
        self._auto_commit = auto_commit

    @property
    def _progress(self):
        """Changes whenever the program asks for records."""
        return self._looks, -1 if self._cursor is None else self._cursor.next_offset

    def _commit_positions(self):
        """Commit where every partition is; the partitions that are somebody else's now, or None."""
        cdef PartitionReader reader
        cdef int64_t position
        cdef list refused = None
        cdef int stored
        cdef bint changed = False
        for item in self._readers:
            reader = item
            position = reader.next_position()
            if reader.cell < 0 or position < 0:
                continue
            stored = self._commits.store(reader.cell, reader.claim, position)
            if not stored:
                refused = refused or []
                refused.append(reader.partition)
            elif stored == 1:
                changed = True
        if self._group_metrics is not None and (changed or refused):
            if changed:
                metrics_add(&(<metrics_group *>self._group_metrics.data).commits, 1)
            if refused:
                metrics_add(&(<metrics_group *>self._group_metrics.data).refused, len(refused))
        return refused

    def commit(self, offsets=None):
        """Commit offsets for the group, visible to every process when this returns; as durable as the broker's `fsync`.

        `offsets`: None (default) for the position of every assigned partition, that is, everything delivered so far; a
        `Record` for the offset behind it; or a dict of `TopicPartition` to an offset (of the next record to read) or to
        `OffsetAndMetadata`. Raises `FencedError` when a partition is not this member's any more (what is this member's
        is committed all the same), `InvalidArgumentError` without a group.
        """
        if offsets is not None or self._commits is None:
            return self._commit_given(offsets)
        self._enter()
        try:
            refused = self._commit_positions()
            if self._sync_commits:
                self._broker._groups.sync()
        finally:
            self._leave()
        if refused:
            raise FencedError(f"{', '.join(map(str, refused))}: not this member's any more; it was rebalanced away")

    def _call_back(self, listener, partitions):
        """Call a rebalance listener, who may use this consumer meanwhile."""
        self._callback_thread = _get_ident()
        try:
            listener(partitions)
        finally:
            self._callback_thread = 0

    cdef int _failed(self, bint delivered) except -1:
        """After an error of the reader in turn: stay before the bad place, let the others go on with the next call."""
        cdef PartitionReader reader
        self._undo.clear()
        self._cursor = None
        self._inside = False
        if self._turn < len(self._readers):
            reader = self._readers[self._turn]
            reader.move(reader.next_position())
            if not delivered:
                self._advance()
        return 0

    cdef void _rewind(self) noexcept:
        """After an interrupt: what was taken but not returned is undelivered."""
        cdef PartitionReader reader
        for reader, offset in reversed(self._undo):
            reader.move(offset)
        self._undo.clear()

    def _set_readers(self, list readers not None):
        """Read these from now on. Their order is the order of the turns."""
        for reader in self._readers:
            (<PartitionReader>reader).count()
        self._readers = readers
        self._cursor = None
        self._turn = 0

    def _move(self, PartitionReader reader not None, int64_t offset):
        """Continue at `offset` of that partition."""
        self._cursor = None
        reader.move(offset)

    def _set_paused(self, PartitionReader reader not None, bint paused):
        """Skip that partition from now on, or no longer. What was fetched of it is kept."""
        self._cursor = None
        reader.paused = paused

    # --- waiting -------------------------------------------------------------------------------------------------

    cdef double _deadline(self, timeout) except? -2.0:
        cdef double seconds
        if timeout is None:
            return INFINITY
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            raise InvalidTypeError(f"timeout is {type(timeout).__name__}; give seconds as int or float, or None for ever")
        seconds = timeout
        if not seconds >= 0:
            raise InvalidArgumentError(f"timeout is {timeout!r}; give seconds >= 0, or None for ever")
        if seconds == 0:
            return -1.0
        if seconds > TIMEOUT_MAX_S:
            return INFINITY
        return <double>self._clock.monotonic() + seconds

    cdef object _wait(self, object seen, double deadline, bint heed_wakeup):
        """What to pass next time, after waiting when `seen` is not None; None when time is up or `wakeup` was called.

        The bell is armed before the caller looks for data again, so that what is appended in between rings it.
        """
        cdef double remaining
        if self._closed:
            if heed_wakeup:
                raise ClosedError("the consumer was closed while it waited")
            return None
        if heed_wakeup and self._woken:
            self._woken = False
            return None
        if deadline < 0:
            return None
        if seen is not None:
            remaining = deadline - <double>self._clock.monotonic() if deadline < INFINITY else INFINITY
            if remaining <= 0:
                return None
            self._bell.wait(seen, min(remaining, self._slice_s))
            PyErr_CheckSignals()
        return self._bell.arm()

    def wakeup(self):
        """Make a blocked `poll` or `poll_batches` return [] now, or the next one that would block. From any thread.

        Iteration does not heed it; `close` ends iteration.
        """
        self._woken = True
        self._bell.ring()

    # --- one thread at a time ------------------------------------------------------------------------------------

    @property
    def closed(self):
        """Whether `close` was called."""
        return self._closed

    cpdef int _check_open(self) except -1:
        """Raise `ClosedError` once closed."""
        if self._closed:
            raise ClosedError("the consumer is closed")
        return 0

    cpdef int _enter(self) except -1:
        """Claim the consumer for this call. The GIL makes this atomic."""
        self._check_open()
        if self._busy and self._callback_thread != <unsigned long>_get_ident():
            raise LockedError("the consumer is in use by another thread; only close and wakeup may be called meanwhile")
        self._busy += 1
        return 0

    cpdef int _leave(self) except -1:
        """Let the next caller in; after a `close` from another thread, give back what is held."""
        self._busy -= 1
        if self._closed and not self._busy:
            self._release()
        return 0

    def _close(self):
        """Close, from any thread; who is blocked inside wakes up and gives back what is held."""
        self._closed = True
        if not self._busy:
            self._release()
        self._bell.ring()

    cdef int _release(self) except -1:
        self._set_readers([])
        return 0

    def _after_fork(self):
        """In the child of a fork: carry on from this copy of the positions, whatever another thread was doing."""
        self._rewind()
        self._busy = 0


def native_iteration(type subclass not None):
    """Class decorator: iterate objects of this Python subclass of `Fetcher` by its native `__next__` directly.

    Python gives a subclass a slot that looks `__next__` up by name for every record, which costs half as much again.
    """
    if not issubclass(subclass, Fetcher) or subclass.__next__ is not Fetcher.__next__:
        raise InvalidTypeError(f"{subclass.__name__} is not a subclass of Fetcher that keeps its __next__")
    (<PyTypeObject *>subclass).tp_iternext = (<PyTypeObject *>Fetcher).tp_iternext
    return subclass


cdef Py_ssize_t _positive(str name, value, Py_ssize_t default) except -2:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"{name} is {type(value).__name__}; give an int >= 1")
    if value < 1:
        raise InvalidArgumentError(f"{name} is {value}; give an int >= 1")
    return min(value, 0x7FFFFFFFFFFFFFFF)
