"""Delivery state of a share group in one partition, and the messages it hands out.

Files, in the group's directory: `control` (lock, start, frontier, minima of chunks), `<20-digit first offset>.words` (one word
a record and the minima of blocks), and for ordered groups `<...>.links` and `slots` (chains of the records of each group).
Thread and process safety: any number of both. Changes are made under the group's lock, but for acknowledging, which is one
compare and swap. Crash policy: see `delivery.h`.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EBUSY
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memcmp, memcpy, memset

from penstock._native.control cimport (
    bell_ring,
    PENSTOCK_FLAG_TRANSACTIONS,
    control_slot,
    control_snapshot,
    file_reserve,
    file_sync,
    lock_acquire,
    lock_handle_init,
    lock_init,
    lock_release,
)
from penstock._native.format cimport load_be64, record_fields, record_read, varint_read
from penstock._native.lane cimport system_time_ms
from penstock._native.mapping cimport Mapping
from penstock._native.partition cimport LogRegion, Partition
from penstock._native.records cimport BatchWalker, Record, RecordCursor

import os
from _thread import allocate_lock as _allocate_lock

from penstock._native.mapping import os_error
from penstock.errors import CorruptionError, InvalidArgumentError, InvalidTypeError, OffsetOutOfRangeError, StaleReceiptError


cdef extern from "<errno.h>" nogil:
    int EOWNERDEAD

cdef extern from "<unistd.h>" nogil:
    int getpid()

VISIBLE_AT_HEADER = "penstock.visible-at"
EXPIRES_AT_HEADER = "penstock.expires-at"
DELIVERY_LIMIT, REJECTED, EXPIRED, MAXLEN, PURGED, MOVED, MISSING = 1, 2, 4, 5, 6, 7, 8
FLAG_DELAYS, FLAG_EXPIRES, FLAG_PRECEDENCE = 1, 2, 4
STATES = ("available", "acquired", "acknowledged", "archived")

cdef enum:
    FETCH_BYTES = 1 << 18
    ADVANCE = 1 << 16
    RESERVE_WORDS = 8192
    REASON_DELIVERY_LIMIT = 1
    REASON_MISSING = 8
    HAS_DELAYS = 1

cdef bytes _visible_at_name = VISIBLE_AT_HEADER.encode()


cdef int _by_offset(const void *a, const void *b) noexcept nogil:
    cdef int64_t x = (<delivery_claim *>a).offset, y = (<delivery_claim *>b).offset
    return (x > y) - (x < y)


cdef uint64_t _hash(const char *p, int64_t size) noexcept nogil:
    cdef uint64_t h = 14695981039346656037u
    cdef int64_t i
    for i in range(size):
        h = (h ^ <unsigned char>p[i]) * 1099511628211u
    return h ^ (h >> 29)


@cython.no_gc  # nothing that it refers to refers to messages
@cython.freelist(512)
cdef class Message:
    """One received message. Settle it by `ack`, `nack` or `reject` before its visibility time-out, or `extend` that.

    As a context manager: acknowledges on leaving, and when an exception leaves, nacks (a failure).
    """

    @property
    def id(self):
        """The message's name: `<topic>-<partition>-<offset>`."""
        return f"{self.record.source.topic}-{self.record.source.partition}-{self.record.offset}"

    @property
    def topic(self):
        """The topic it is stored in."""
        return self.record.source.topic

    @property
    def partition(self):
        """The partition it is stored in."""
        return self.record.source.partition

    @property
    def offset(self):
        """Its offset there."""
        return self.record.offset

    @property
    def value(self):
        """The body, bytes (or None)."""
        return self.record.value

    @property
    def key(self):
        """The record's key, bytes or None."""
        return self.record.key

    @property
    def group_id(self):
        """Its message group (the record's key), or None."""
        return None if self.record.key is None else (<bytes>self.record.key).decode("utf-8", "surrogateescape")

    @property
    def headers(self):
        """Headers as a new list of (str, bytes or None), without those that the queue itself uses."""
        return [pair for pair in self.record.pairs or () if not pair[0].startswith("penstock.")]

    @property
    def all_headers(self):
        """Every header as a new list of (str, bytes or None)."""
        return list(self.record.pairs or ())

    @property
    def timestamp_ms(self):
        """When it was sent, milliseconds since the epoch."""
        return self.record.timestamp_ms

    @property
    def delivery_count(self):
        """How often it was received so far, this time included (SQS's ApproximateReceiveCount)."""
        return self.receipt

    @property
    def failure_count(self):
        """How many of those deliveries failed: nacked, or timed out."""
        return self.failures

    @property
    def receipt_handle(self):
        """Names this delivery, for `Queue.delete` and `Queue.change_visibility`, in any process."""
        return f"{self.record.source.partition}.{self.record.offset}.{self.receipt}"

    @property
    def priority(self):
        """Its priority; 0 is the lowest."""
        return self.queue.priority_of(self.record.source.partition)

    def ack(self):
        """It was dealt with: never delivered to this group again. `StaleReceiptError` when it was received again since."""
        if self.delivery.accept(self.record.offset, self.receipt):
            count_up(&self.delivery.control.acknowledgements, 1)
        self.settled = True
        if self.delivery.sync_each:
            self.delivery.sync()

    def nack(self, delay=0.0, failed=True):
        """Give it back, to be delivered again after `delay` seconds. `failed` (default) counts towards the delivery limit."""
        self.queue._nack(self, delay, failed)
        self.settled = True

    def reject(self, reason="rejected"):
        """It can never be dealt with: dead-letter it (or keep it as dead) without further deliveries."""
        self.queue._reject(self, reason)
        self.settled = True

    def extend(self, seconds):
        """Its visibility time-out ends `seconds` from now (0: give it back at once, which is no failure)."""
        self.queue._extend(self, seconds)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.settled:
            return
        if kind is None:
            self.ack()
        elif issubclass(kind, Exception):
            self.queue._failed(self, error)
        else:
            self.nack(failed=False)

    def __repr__(self):
        return f"<penstock.Message {self.id} delivery_count={self.receipt} value={self.value!r}>"


cdef class Delivery:
    """`Delivery(directory, log, incarnation, boot_id, ordered, decompressed_limit_bytes)`: opened under a file lock, see
    `penstock.queues.delivery_store`."""

    def __cinit__(self):
        self.view.chunks = NULL
        self.view.links = NULL

    def __init__(self, str directory not None, Partition log not None, uint64_t incarnation, str boot_id not None, bint ordered, Py_ssize_t decompressed_limit_bytes):
        cdef bytes boot = boot_id.encode("ascii")[:36]
        cdef control_slot slot
        self.directory = directory
        self.log = log
        self.ordered = ordered
        self.maps = []
        self.reading = _allocate_lock()
        self.control_map = Mapping(f"{directory}/control", DELIVERY_CONTROL_BYTES, True, True)
        self._reserve_ring(0)
        self.control = <delivery_control *>self.control_map.data
        self.view.control = self.control
        if ordered:
            self.slots_map = Mapping(f"{directory}/slots", DELIVERY_SLOTS * sizeof(delivery_slot), True, True)
            if self.slots_map.file_size() < <int64_t>(DELIVERY_SLOTS * sizeof(delivery_slot)):
                self._reserve(self.slots_map, 0, DELIVERY_SLOTS * sizeof(delivery_slot))
            self.view.slots = <delivery_slot *>self.slots_map.data
        self.cursor = RecordCursor(log.topic, log.number)
        self.cursor.decompressed_limit_bytes = decompressed_limit_bytes
        if memcmp(self.control.magic, DELIVERY_MAGIC, 8) != 0:
            memset(self.control, 0, 4096)
            control_snapshot(log.control, &slot)
            self.control.start = self.control.frontier = self.control.touched = slot.log_start_offset
            self._renew(incarnation, boot)
            memcpy(self.control.magic, DELIVERY_MAGIC, 8)
            self.fresh = True
        elif self.control.incarnation != incarnation:
            if memcmp(self.control.boot_id, <char *>boot, len(boot)) != 0:
                self.after_power_cut = True
            self._renew(incarnation, boot)
        lock_handle_init(&self.lock, &self.control.lock.mutex, self.control_map.fd)
        if self.after_power_cut:
            self._recover()

    def __dealloc__(self):
        free(self.view.chunks)
        free(self.view.links)

    cdef int _renew(self, uint64_t incarnation, bytes boot) except -1:
        cdef int rc = lock_init(&self.control.lock.mutex)
        if rc:
            raise os_error(rc, self.control_map.path, "making the lock of")
        memset(self.control.boot_id, 0, 40)
        memcpy(self.control.boot_id, <char *>boot, len(boot))
        self.control.incarnation = incarnation

    def after_fork(self):
        """In the child of a fork: its own half of the lock."""
        lock_handle_init(&self.lock, &self.control.lock.mutex, self.control_map.fd)
        self.reading = _allocate_lock()
        self.region = None

    cdef int _recover(self) except -1:
        """The machine went down: words may be older than the log, or newer, and files shorter. Forget what lies past the log's
        end; minima, counts and chains are made again."""
        cdef delivery_control *c = self.control
        cdef control_slot slot
        cdef int64_t offset, end
        control_snapshot(self.log.control, &slot)
        end = slot.log_end_offset
        self._acquire()
        try:
            c.start = min(c.start, end)
            self._ensure(max(c.frontier, end), True)
            for offset in range(end, c.frontier):
                view_word(&self.view, offset)[0] = 0
            c.frontier = min(c.frontier, end)
            c.touched = c.frontier
            for offset in range(c.start, c.frontier):
                view_chunk_minimum(&self.view, offset)[0] = 0
                view_minimum(&self.view, offset)[0] = 0
            if self.ordered:
                end, c.frontier = c.frontier, c.start
                self.keep = True
                self._parse_in(end)
                self.keep = False
            view_rebuild(&self.view)
        finally:
            lock_release(&self.lock)

    # --- files ---------------------------------------------------------------------------------------------------

    cdef int _reserve(self, Mapping map, int64_t start, int64_t end) except -1:
        cdef int rc = file_reserve(map.fd, start, end)
        if rc:
            raise os_error(rc, map.path, "growing")

    cdef int _reserve_ring(self, int64_t chunk) except -1:
        """Room for the minimum of a chunk, and what lies before it."""
        cdef int64_t size = self.control_map.file_size()
        cdef int64_t end = ((4096 + 8 * (chunk % DELIVERY_RING)) | 4095) + 1
        if size < end:
            self._reserve(self.control_map, size, end)
        return 0

    cdef int _ensure(self, int64_t end, bint whole=False) except -1:
        """Map the chunks from the start up to offset `end`, with room on the disk (`whole`: also for what had it). Under the
        lock."""
        cdef int64_t first = self.control.start >> DELIVERY_CHUNK_BITS
        cdef int64_t last = max(end - 1, self.control.start) >> DELIVERY_CHUNK_BITS
        cdef int64_t number, count, size, grown
        cdef Mapping map, links
        cdef int i
        if len(self.maps) == 0 or first != self.view.first:
            if last - first >= DELIVERY_RING:
                raise InvalidArgumentError(f"{last - first} chunks of unsettled records in {self.directory}; at most {DELIVERY_RING} are allowed")
            kept = {self.view.first + i: pair for i, pair in enumerate(self.maps)}
            if kept:
                self._remove_below(first << DELIVERY_CHUNK_BITS)
            self.maps = []
            while first + len(self.maps) <= last and first + len(self.maps) in kept:
                self.maps.append(kept[first + len(self.maps)])
            self.view.first = first
            self._fill()
        while first + <int64_t>len(self.maps) <= last:
            number = first + len(self.maps)
            base = f"{self.directory}/{number << DELIVERY_CHUNK_BITS:020d}"
            self._reserve_ring(number)
            map = Mapping(base + ".words", DELIVERY_CHUNK_BYTES, True, True)
            if map.file_size() < DELIVERY_WORDS_AT:
                self._reserve(map, 0, DELIVERY_WORDS_AT)
            links = None
            if self.ordered:
                links = Mapping(base + ".links", DELIVERY_CHUNK * sizeof(delivery_link), True, True)
            self.maps.append((map, links))
            self.new_files = True
            self._fill()
        if end <= self.reserved:
            return 0
        for number in range(first if whole else max(first, self.control.frontier >> DELIVERY_CHUNK_BITS), last + 1):
            count = min(end - (number << DELIVERY_CHUNK_BITS), <int64_t>DELIVERY_CHUNK)
            count = min((count + RESERVE_WORDS - 1) // RESERVE_WORDS * RESERVE_WORDS, <int64_t>DELIVERY_CHUNK)
            map, links = self.maps[number - first]
            size = map.file_size()
            grown = DELIVERY_WORDS_AT + 8 * count
            if size < grown:
                self._reserve(map, size, grown)
            if links is not None:
                size = links.file_size()
                if size < count * <int64_t>sizeof(delivery_link):
                    self._reserve(links, size, count * sizeof(delivery_link))
            self.reserved = (number << DELIVERY_CHUNK_BITS) + count
        return 0

    cdef int _fill(self) except -1:
        cdef Py_ssize_t i
        cdef Mapping map, links
        free(self.view.chunks)
        free(self.view.links)
        self.view.chunks = <char **>calloc(len(self.maps) + 1, sizeof(char *))
        self.view.links = <char **>calloc(len(self.maps) + 1, sizeof(char *))
        if self.view.chunks == NULL or self.view.links == NULL:
            raise MemoryError()
        for i in range(len(self.maps)):
            map, links = self.maps[i]
            self.view.chunks[i] = map.data
            if links is not None:
                self.view.links[i] = links.data
        return 0

    cdef int _remove_below(self, int64_t first) except -1:
        """Delete the files of chunks in which everything is settled. Other processes let go of theirs later."""
        for name in os.listdir(self.directory):
            if name[:20].isdigit() and int(name[:20]) < first:
                os.unlink(f"{self.directory}/{name}")
        return 0

    def sync(self):
        """What was settled before is on the disk when this returns."""
        cdef Mapping map, links
        for map, links in [(self.control_map, self.slots_map), *self.maps]:
            for one in (map, links):
                if one is not None:
                    _sync(one)
        if self.new_files:
            self.new_files = False
            _sync(Mapping(self.directory, 0))
            _sync(Mapping(os.path.dirname(self.directory), 0))

    # --- the lock ------------------------------------------------------------------------------------------------

    cdef int _acquire(self) except -1:
        cdef int rc = lock_acquire(&self.lock, 0)
        if rc == EBUSY:
            with nogil:
                rc = lock_acquire(&self.lock, 1)
        if rc != 0 and rc != EOWNERDEAD:
            raise os_error(rc, self.control_map.path, "locking")
        if self.control.dirty:
            try:
                self._ensure(self.control.frontier)
                view_rebuild(&self.view)
            except BaseException:
                lock_release(&self.lock)
                raise
        return 0

    def test_mark_dirty(self):
        """As if somebody had died in the middle of a change; for tests. Whoever takes the lock next rebuilds."""
        self._acquire()
        self.control.dirty = 1
        lock_release(&self.lock)

    # --- taking in what was stored ---------------------------------------------------------------------------------

    cdef int _take_in(self) except -1:
        """Bring start and frontier up to the log. Under the lock."""
        cdef control_slot slot
        cdef delivery_control *c = self.control
        cdef int64_t end, start, offset
        control_snapshot(self.log.control, &slot)
        end = slot.log_end_offset
        if self.log.control.flags & PENSTOCK_FLAG_TRANSACTIONS:
            end = (<object>self.log).last_stable_offset
        if slot.log_start_offset > c.start:
            self._skip_to(slot.log_start_offset)
        if end > c.frontier:
            self._ensure(end)
            if self.ordered or c.flags & HAS_DELAYS:
                c.dirty = self.ordered
                self._parse_in(end)
                c.dirty = 0
            else:
                self._lower_all(c.frontier, end)
                c.frontier = end
        elif <int64_t>len(self.maps) + self.view.first << DELIVERY_CHUNK_BITS < c.frontier or self.view.first != c.start >> DELIVERY_CHUNK_BITS:
            self._ensure(c.frontier)
        return 0

    cdef int _lower_all(self, int64_t start, int64_t end) except -1:
        cdef int64_t offset = start
        while offset < end:
            view_lower(&self.view, offset, 0)
            offset = (offset // DELIVERY_BLOCK + 1) * DELIVERY_BLOCK

    cdef int _skip_to(self, int64_t offset) except -1:
        """Retention took what is below: as if it was settled."""
        cdef delivery_control *c = self.control
        cdef int64_t at
        c.dirty = 1
        if self.ordered:
            self._ensure(c.frontier)
            for at in range(c.start, min(offset, c.frontier)):
                if word_state(view_word(&self.view, at)[0]) < ACKNOWLEDGED:
                    view_word(&self.view, at)[0] = word_make(VISIBLE_NEVER - REASON_MISSING, 0, 0, ARCHIVED)
                    group_advance(&self.view, at)
        c.touched = max(c.touched, offset)
        c.frontier = max(c.frontier, offset)
        c.start = offset
        self._ensure(c.frontier)
        c.dirty = 0

    cdef int _parse_in(self, int64_t end) except -1:
        """Take in records one by one: delays and groups are in them."""
        cdef delivery_control *c = self.control
        cdef LogRegion region = None
        cdef BatchWalker walker
        cdef record_fields fields
        cdef const char *p
        cdef int64_t offset, visible, at, i
        while c.frontier < end:
            try:
                region = self.log.fetch(c.frontier, FETCH_BYTES, region, end)
            except OffsetOutOfRangeError:
                self._skip_to((<object>self.log).log_start_offset)
                region = None
                continue
            if region is None:
                break
            walker = BatchWalker(region, self.cursor.decompressed_limit_bytes)
            if self.log.control.flags & PENSTOCK_FLAG_TRANSACTIONS:
                walker.aborted = (<object>self.log).aborted_in(c.frontier, region.next_offset)
            while walker.advance():
                if walker.base_offset + walker.last_offset_delta < c.frontier:
                    continue
                at = max(c.frontier, walker.base_offset)
                p = walker.payload
                for i in range(0 if walker.hidden else walker.count):
                    p = record_read(p, walker.payload_end, &fields)
                    if p == NULL or not 0 <= fields.offset_delta <= walker.last_offset_delta:
                        raise walker.corrupt("a record contradicts its batch", f"{walker.count} whole records", i)
                    offset = walker.base_offset + fields.offset_delta
                    if offset < c.frontier:
                        continue
                    while at < offset:
                        self._enter(at, NULL, 0, -1)
                        at += 1
                    visible = self._visible_at(&fields) if fields.header_count and c.flags & HAS_DELAYS else 0
                    self._enter(offset, fields.key, fields.key_length, visible)
                    at = offset + 1
                while at <= walker.base_offset + walker.last_offset_delta:
                    self._enter(at, NULL, 0, -1)
                    at += 1
                c.frontier = at
        return 0

    cdef int64_t _visible_at(self, record_fields *fields) noexcept:
        cdef const char *p = fields.headers
        cdef int64_t size, i, value_size
        cdef const char *name
        for i in range(fields.header_count):
            p = varint_read(p, fields.end, 5, &size)
            if p == NULL or size < 0 or size > fields.end - p:
                return 0
            name = p
            p = varint_read(p + size, fields.end, 5, &value_size)
            if p == NULL or value_size > fields.end - p:
                return 0
            if size == len(_visible_at_name) and value_size == 8 and memcmp(name, PyBytes_AS_STRING(_visible_at_name), size) == 0:
                return min(max(<int64_t>load_be64(p), 0), VISIBLE_MAX)
            if value_size > 0:
                p += value_size
        return 0

    cdef void _enter(self, int64_t offset, const char *key, int64_t key_length, int64_t visible) noexcept:
        """A new record, or with `visible` -1 an offset without one."""
        cdef uint32_t slot
        if self.keep:
            view_link(&self.view, offset).slot = _hash(key, max(key_length, 0)) % DELIVERY_SLOTS + 1
            return
        if visible < 0:
            view_word(&self.view, offset)[0] = word_make(VISIBLE_NEVER - REASON_MISSING, 0, 0, ARCHIVED)
            view_touch(&self.view, offset)
            return
        view_lower(&self.view, offset, visible)
        view_word(&self.view, offset)[0] = word_make(visible, 0, 0, AVAILABLE)
        if visible:
            view_touch(&self.view, offset)
        if self.ordered:
            slot = _hash(key, max(key_length, 0)) % DELIVERY_SLOTS  # those without a key are one group
            group_join(&self.view, offset, slot)

    # --- receiving -------------------------------------------------------------------------------------------------

    def claim(self, queue not None, list out not None, int64_t now_ms, int64_t until_ms, Py_ssize_t wanted, int64_t failures_max):
        """Acquire up to `wanted` messages until `until_ms` (with `now_ms` -1: so long from the machine's time) and append them to `out`; returns those that failed too often, to be
        dead-lettered by the caller, as a list of (message, when its last lock ran out, if its holder was about to dead-letter it; else None).

        Raises `CorruptionError` when the first one cannot be read: a failure, hidden for as long as it was asked for.
        """
        cdef delivery_claim *claims
        cdef int64_t n, i
        cdef Message message
        cdef list exhausted = None
        cdef bint dead
        if wanted < 1:
            return None
        if now_ms < 0:
            now_ms = system_time_ms()
            until_ms += now_ms
        claims = <delivery_claim *>malloc(wanted * sizeof(delivery_claim))
        if claims == NULL:
            raise MemoryError()
        try:
            self._acquire()
            try:
                self._take_in()
                view_advance(&self.view, ADVANCE)
                if self.ordered:
                    self.control.dirty = 1
                n = view_claim(&self.view, now_ms, until_ms, wanted, getpid(), claims)
                self.control.dirty = 0
            finally:
                lock_release(&self.lock)
            if self.ordered:
                qsort(claims, n, sizeof(delivery_claim), _by_offset)
            with self.reading:
                for i in range(n):
                    try:
                        message = self._read(queue, claims[i].offset)
                    except CorruptionError:
                        if i > 0:
                            self._give_back(claims, i, n)  # the next call begins with it
                            break
                        self._give_back(claims, 1, n)
                        dead = failures_max > 0 and word_failures(claims[0].word) + 1 >= failures_max
                        self.settle(
                            claims[0].offset, word_acquired(claims[0].word), REJECT if dead else FAIL,
                            REASON_DELIVERY_LIMIT if dead else until_ms,
                        )
                        raise
                    except BaseException:
                        self._give_back(claims, i, n)
                        raise
                    if message is None:
                        self.settle(claims[i].offset, word_acquired(claims[i].word), REJECT, REASON_MISSING)
                        continue
                    message.receipt = word_acquired(claims[i].word)
                    message.failures = word_failures(claims[i].word)
                    if failures_max > 0 and message.failures >= failures_max:
                        if exhausted is None:
                            exhausted = []
                        exhausted.append((message, claims[i].visible if message.failures == COUNT_MAX else None))
                    else:
                        out.append(message)
        finally:
            free(claims)
        return exhausted

    cdef int _give_back(self, delivery_claim *claims, int64_t first, int64_t n) except -1:
        """These were not handed out after all."""
        cdef int64_t i
        for i in range(first, n):
            self.settle(claims[i].offset, word_acquired(claims[i].word), UNDO, 0)
        return 0

    cdef Message _read(self, queue, int64_t offset):
        """The message at an offset; None when there is no record."""
        cdef Record record
        cdef Message message
        record = self._record_at(offset)
        if record is None:
            return None
        message = Message.__new__(Message)
        message.record = record
        message.queue = queue
        message.delivery = self
        return message

    cdef Record _record_at(self, int64_t offset):
        cdef Record record
        cdef LogRegion region
        while True:
            if self.region is None or offset < self.cursor.next_offset or offset >= self.region.next_offset:
                try:
                    region = self.log.fetch(offset, FETCH_BYTES, self.region)
                except OffsetOutOfRangeError:
                    self.region = None
                    return None  # retention was faster
                self.region = None  # in case feeding it fails
                if region is None:
                    return None
                if self.log.control.flags & PENSTOCK_FLAG_TRANSACTIONS:
                    self.cursor.aborted = (<object>self.log).aborted_in(offset, region.next_offset)
                self.cursor.feed(region, offset)
                self.region = region
            self.cursor.from_offset = offset
            try:
                record = self.cursor._advance()
            except BaseException:
                self.region = None
                raise
            if record is None:
                if self.region.next_offset > offset:
                    return None
                self.region = None
                continue
            if record.offset != offset:
                self.region = None  # it may be asked for next
                return None
            return record

    def read(self, queue, int64_t offset):
        """The message at an offset, not received (`delivery_count` as of now), or None."""
        cdef Message message
        cdef uint64_t word
        with self.reading:
            message = self._read(queue, offset)
        if message is not None:
            word = self._word(offset)
            message.receipt = word_acquired(word)
            message.failures = word_failures(word)
        return message

    cdef uint64_t _word(self, int64_t offset) except? 0:
        cdef uint64_t word
        self._acquire()
        try:
            self._take_in()
            word = word_get(view_word(&self.view, offset)) if self.control.start <= offset < self.control.frontier else 0
        finally:
            lock_release(&self.lock)
        return word

    # --- settling --------------------------------------------------------------------------------------------------

    cdef bint _mapped(self, int64_t offset) noexcept:
        cdef int64_t chunk = (offset >> DELIVERY_CHUNK_BITS) - self.view.first
        return 0 <= chunk < <int64_t>len(self.maps)

    cdef int accept(self, int64_t offset, int64_t receipt) except -1:
        """Acknowledge: one compare and swap (in ordered groups under the lock). 1 when the caller has to count it."""
        cdef uint64_t word, after
        cdef uint64_t *place
        if self.ordered or not self._mapped(offset) or offset < self.control.start:
            self.settle(offset, receipt, ACCEPT, 0)
            return 0
        place = view_word(&self.view, offset)
        while True:
            word = word_get(place)
            after = word_settle(word, receipt, ACCEPT, 0)
            if after == WORD_STALE:
                raise self._stale(offset, receipt, word)
            if after == word:
                return 0
            if word_cas(place, word, after):
                return 1

    cpdef int settle(self, int64_t offset, int64_t receipt, int action, int64_t visible) except -1:
        """Change an acquired message's state (see `delivery.h`); `StaleReceiptError` when the receipt is not the latest."""
        cdef uint64_t word, after
        cdef uint64_t *place
        cdef bint head
        self._acquire()
        try:
            if offset < self.control.start:
                if action == ACCEPT:
                    return 0  # settled, or past retention: there is nothing left to acknowledge
                raise self._stale(offset, receipt, 0)
            if offset >= self.control.frontier:
                raise self._stale(offset, receipt, 0)
            if not self._mapped(offset):
                self._ensure(self.control.frontier)
            place = view_word(&self.view, offset)
            while True:
                word = word_get(place)
                after = word_settle(word, receipt, action, visible)
                if after == WORD_STALE:
                    raise self._stale(offset, receipt, word)
                if after == word:
                    return 0
                if self.ordered or word_dead(after):
                    self.control.dirty = 1
                if self.ordered and word_state(after) == AVAILABLE and not self._leads(offset):
                    after = word_make(VISIBLE_PARKED, word_acquired(after), word_failures(after), AVAILABLE)
                if word_state(after) < ACKNOWLEDGED:
                    view_lower(&self.view, offset, word_visible(after))
                if word_cas(place, word, after):
                    break
            if word_state(after) == ACKNOWLEDGED:
                count_up(&self.control.acknowledgements, 1)
            elif word_state(after) == ARCHIVED:
                self.control.archivals += 1
                if word_dead(after):
                    view_chunk_dead(&self.view, offset)[0] += 1
            if self.ordered and word_state(after) >= ACKNOWLEDGED:
                group_advance(&self.view, offset)
            self.control.dirty = 0
        finally:
            lock_release(&self.lock)
        if self.ordered or word_state(after) == AVAILABLE:
            bell_ring(self.log.bell.words)
        return 0

    cdef bint _leads(self, int64_t offset) noexcept:
        return self.view.slots[view_link(&self.view, offset).slot - 1].head == offset + 1

    cdef object _stale(self, int64_t offset, int64_t receipt, uint64_t word):
        state = STATES[word_state(word)] if word else "available, or gone"
        return StaleReceiptError(
            f"receipt {receipt} of offset {offset} in {self.log.topic}-{self.log.number} is stale: the message is {state}, "
            f"received {word_acquired(word)} times"
        )

    def requeue(self, int64_t offset, int64_t visible_ms):
        """Make a dead message available again, with its failures forgotten; False when it is not dead."""
        cdef uint64_t word
        cdef uint64_t *place
        self._acquire()
        try:
            self._take_in()
            if not self.control.start <= offset < self.control.frontier:
                return False
            place = view_word(&self.view, offset)
            word = word_get(place)
            if not word_dead(word):
                return False
            self.control.dirty = 1
            view_chunk_dead(&self.view, offset)[0] -= 1
            view_lower(&self.view, offset, visible_ms)
            word_put(place, word_make(visible_ms, word_acquired(word), 0, AVAILABLE))
            if self.ordered:
                view_rebuild(&self.view)
            self.control.dirty = 0
        finally:
            lock_release(&self.lock)
        bell_ring(self.log.bell.words)
        return True

    def acquire(self, queue not None, int64_t offset, int64_t until_ms):
        """Receive the message at one offset, if nobody has it; or None. Not for ordered groups' records behind their head."""
        cdef uint64_t word, after
        cdef uint64_t *place
        cdef Message message = self.read(queue, offset)
        if message is None:
            return None
        self._acquire()
        try:
            self._take_in()
            if not self.control.start <= offset < self.control.frontier:
                return None
            place = view_word(&self.view, offset)
            word = word_get(place)
            if word_state(word) != AVAILABLE or self.ordered and not self._leads(offset):
                return None
            after = word_acquire(word, until_ms)
            view_lower(&self.view, offset, until_ms)
            word_put(place, after)
            view_touch(&self.view, offset)
        finally:
            lock_release(&self.lock)
        message.receipt = word_acquired(after)
        message.failures = word_failures(after)
        return message

    def received(self, queue not None, int64_t offset, int64_t receipt):
        """The message that was handed out with a receipt, while that is valid; or None."""
        cdef uint64_t word = self._word(offset)
        cdef Message message
        if word_state(word) != ACQUIRED or word_acquired(word) != receipt:
            return None
        message = self.read(queue, offset)
        if message is not None:
            message.receipt = receipt
            message.failures = word_failures(word)
        return message

    def archive(self, int64_t start, int64_t end, int reason, str state not None="unsettled"):
        """Archive what is available (`state` "dead": what is dead) in [start, end); how many. What is in flight stays."""
        cdef int64_t offset, count = 0
        cdef uint64_t word
        cdef uint64_t *place
        cdef bint dead = state == "dead"
        self._acquire()
        try:
            self._take_in()
            self.control.dirty = 1
            for offset in range(max(start, self.control.start), min(end, self.control.frontier)):
                place = view_word(&self.view, offset)
                word = word_get(place)
                if (word_dead(word) if dead else word_state(word) == AVAILABLE):
                    word_put(place, word_make(VISIBLE_NEVER - reason, word_acquired(word), word_failures(word), ARCHIVED))
                    view_touch(&self.view, offset)
                    self.control.archivals += 1
                    count += 1
            view_rebuild(&self.view)
            view_advance(&self.view, INT64_MAX >> 1)
        finally:
            lock_release(&self.lock)
        return count

    # --- looking ---------------------------------------------------------------------------------------------------

    def take_in(self):
        """Look at what was stored since; returns (start, frontier)."""
        self._acquire()
        try:
            self._take_in()
            view_advance(&self.view, ADVANCE)
            return self.control.start, self.control.frontier
        finally:
            lock_release(&self.lock)

    def next_visible_ms(self):
        """When the next message may become visible by itself (a lower bound), or None."""
        cdef int64_t least = view_next_visible(&self.view)
        return None if least > VISIBLE_MAX else least

    def counts(self, int64_t now_ms):
        """(ready, in_flight, delayed, dead, oldest unsettled offset or -1), exactly. A message that waits for the earlier one
        of its group is ready."""
        cdef delivery_counts n
        self._acquire()
        try:
            self._take_in()
            view_advance(&self.view, ADVANCE)
            view_count(&self.view, now_ms, &n)
        finally:
            lock_release(&self.lock)
        return n.ready + n.parked, n.in_flight, n.delayed, n.dead, n.oldest

    def find(self, str state not None, int64_t now_ms, int64_t start, Py_ssize_t most):
        """Offsets of up to `most` messages in a state (ready, in_flight, delayed, dead) from offset `start` on."""
        cdef uint64_t word, bound = <uint64_t>(now_ms + 1) << VISIBLE_SHIFT
        cdef int64_t offset
        cdef int kind
        found = []
        self._acquire()
        try:
            self._take_in()
            offset = max(start, self.control.start)
            while offset < self.control.frontier and len(found) < most:
                word = word_get(view_word(&self.view, offset))
                kind = word_state(word)
                if kind >= ACKNOWLEDGED:
                    name = "dead" if word_dead(word) else ""
                elif word < bound or word_visible(word) == VISIBLE_PARKED:
                    name = "ready"
                else:
                    name = "in_flight" if kind == ACQUIRED else "delayed"
                if name == state:
                    found.append(offset)
                offset += 1
        finally:
            lock_release(&self.lock)
        return found

    def unsettled(self, int64_t now_ms):
        """(first offset, a byte for each message from there on: 0 settled, 1 ready, 2 in flight or delayed)."""
        cdef int64_t offset, start
        cdef uint64_t word, bound = <uint64_t>(now_ms + 1) << VISIBLE_SHIFT
        cdef bytes kinds
        cdef char *kind
        self._acquire()
        try:
            self._take_in()
            start = self.control.start
            kinds = PyBytes_FromStringAndSize(NULL, self.control.frontier - start)
            kind = PyBytes_AS_STRING(kinds)
            for offset in range(start, self.control.frontier):
                word = word_get(view_word(&self.view, offset))
                if word_state(word) >= ACKNOWLEDGED:
                    kind[offset - start] = 0
                else:
                    kind[offset - start] = 1 if word < bound or word_visible(word) == VISIBLE_PARKED else 2
        finally:
            lock_release(&self.lock)
        return start, kinds

    @property
    def totals(self):
        """(acquisitions, acknowledgements, archivals) so far."""
        return self.control.acquisitions, self.control.acknowledgements, self.control.archivals

    @property
    def start(self):
        """Every message below this offset is settled."""
        return self.control.start

    def set_flag(self, int64_t flag):
        """From now on, records are looked into for delays (`FLAG_DELAYS`) or time-outs (`FLAG_EXPIRES`), or
        some receivers come first (`FLAG_PRECEDENCE`)."""
        if not self.control.flags & flag:
            self._acquire()
            self.control.flags |= flag
            lock_release(&self.lock)

    @property
    def flags(self):
        """What records are looked into for."""
        return self.control.flags

    def skip_to(self, int64_t offset):
        """Begin at an offset: everything below counts as settled. For a group that is made now."""
        self._acquire()
        try:
            if offset > self.control.start:
                self._skip_to(offset)
        finally:
            lock_release(&self.lock)


cdef int _sync(Mapping map) except -1:
    cdef int rc, fd = map.fd
    with nogil:
        rc = file_sync(fd)
    if rc:
        raise os_error(rc, map.path, "syncing")


def ack_many(messages not None):
    """Acknowledge messages of any queues; returns those whose receipts are stale (the others are acknowledged)."""
    cdef Message message
    cdef Delivery delivery
    cdef Delivery counted = None
    cdef int64_t count = 0
    cdef set synced = None
    stale = []
    for item in messages:
        if not isinstance(item, Message):
            raise InvalidTypeError(f"messages has a {type(item).__name__}; received messages are needed")
    for item in messages:
        message = <Message>item
        delivery = message.delivery
        if delivery is not counted:
            if count:
                count_up(&counted.control.acknowledgements, count)
            counted, count = delivery, 0
            if delivery.sync_each:
                synced = synced or set()
                synced.add(delivery)
        try:
            count += delivery.accept(message.record.offset, message.receipt)
            message.settled = True
        except StaleReceiptError:
            stale.append(message)
    if count:
        count_up(&counted.control.acknowledgements, count)
    if synced:
        for one in synced:
            one.sync()
    return stale
