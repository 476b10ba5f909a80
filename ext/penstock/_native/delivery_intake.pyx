"""Taking in what was stored since: the words of new records, their delays, and the chains of ordered groups.

Done under the group's lock by whoever looks first. Where nothing has to be known of the records themselves, only minima of blocks
are lowered; else the records are read. Crash policy: `frontier` moves after the words below it.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from libc.string cimport memcmp

from penstock._native.control cimport PENSTOCK_FLAG_TRANSACTIONS, control_slot, control_snapshot, lock_release
from penstock._native.delivery_files cimport DeliveryFiles
from penstock._native.delivery_view cimport *
from penstock._native.format cimport load_be64, record_fields, record_read, varint_read
from penstock._native.log_region cimport LogRegion
from penstock._native.partition cimport Partition
from penstock._native.records cimport BatchWalker

from penstock.errors import OffsetOutOfRangeError

VISIBLE_AT_HEADER = "penstock.visible-at"
EXPIRES_AT_HEADER = "penstock.expires-at"
FLAG_DELAYS, FLAG_EXPIRES, FLAG_PRECEDENCE = 1, 2, 4

cdef enum:
    FETCH_BYTES = 1 << 18
    REASON_MISSING = 8
    HAS_DELAYS = 1

cdef bytes _visible_at_name = VISIBLE_AT_HEADER.encode()


cdef uint64_t _hash(const char *p, int64_t size) noexcept nogil:
    cdef uint64_t h = 14695981039346656037u
    cdef int64_t i
    for i in range(size):
        h = (h ^ <unsigned char>p[i]) * 1099511628211u
    return h ^ (h >> 29)


cdef class DeliveryIntake(DeliveryFiles):
    """The files, and what is taken into them."""

    def __init__(self, str directory not None, Partition log not None, uint64_t incarnation, str boot_id not None, bint ordered, Py_ssize_t decompressed_limit_bytes):
        DeliveryFiles.__init__(self, directory, log, incarnation, boot_id, ordered)
        self.decompressed_limit_bytes = decompressed_limit_bytes
        if self.after_power_cut:
            self._recover()

    cdef int _recover(self) except -1:
        """The machine went down: words may be older than the log, or newer, and files shorter. Forget what lies past the log's
        end; minima, counts and chains are made again."""
        cdef delivery_control *c = self.control
        cdef control_slot slot
        cdef int64_t offset, end
        cdef int64_t *first
        control_snapshot(self.log.control, &slot)
        end = slot.log_end_offset
        self._acquire()
        try:
            c.start = min(c.start, end)
            self._ensure(max(c.frontier, end), True)
            for offset in range(end, c.frontier):
                view_word(&self.view, offset)[0] = 0
                first = self._first(offset, False)
                if first != NULL:
                    first[0] = 0
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

    cdef bint _take_in(self, int64_t most=INT64_MAX) except -1:
        """Bring start and frontier up to the log; up to offset `most` only, where records need not be read. Whether there is
        more. Under the lock."""
        cdef control_slot slot
        cdef delivery_control *c = self.control
        cdef int64_t end
        cdef bint more = False
        control_snapshot(self.log.control, &slot)
        end = slot.log_end_offset
        if self.log.control.flags & PENSTOCK_FLAG_TRANSACTIONS:
            end = (<object>self.log).last_stable_offset
        if slot.log_start_offset > c.start:
            self._skip_to(slot.log_start_offset)
        if most < end and not (self.ordered or c.flags & HAS_DELAYS):
            more = True
            end = most
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
        return more

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
            walker = BatchWalker(region, self.decompressed_limit_bytes)
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
