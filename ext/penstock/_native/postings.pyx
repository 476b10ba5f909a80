"""The newest part of the event store's index, in memory: which terms (streams, types, tags, categories) the batches hold
that no run on the disk covers yet. Derived from the log batch by batch; see `postings.h` for rows and hashes.

Invariant: one row for each stream and batch (its events lie together), one for each other term and batch.
Thread safety: one thread at a time. Crash policy: lives in memory only; after a crash it is made anew from the log.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy

from penstock._native cimport postings
from penstock._native.builder cimport BatchBuilder
from penstock._native.format cimport BATCH_HEADER_BYTES, record_fields, record_read
from penstock._native.postings cimport *
from penstock._native.records cimport BatchWalker
from penstock._native.region cimport Region

from penstock.errors import CorruptionError, InvalidArgumentError

cdef enum:
    ROWS_MIN = 1024


def hash_term(bytes term not None):
    """The hash of a term: one byte that says of what kind it is, then its UTF-8."""
    if PyBytes_GET_SIZE(term) == 0:
        raise InvalidArgumentError("term is empty; the byte of its kind is needed")
    return term_hash(PyBytes_AS_STRING(term)[0], PyBytes_AS_STRING(term) + 1, PyBytes_GET_SIZE(term) - 1)


def set_hash_mask(uint64_t mask):
    """Keep only these bits of hashes, so that they collide (for tests)."""
    postings.term_hash_mask = mask


def sort_rows(bytes rows not None, int64_t start):
    """Those of `rows` (of `Tail.copy_rows`) at or behind offset `start`, sorted as they lie in a run. Without the GIL."""
    cdef const posting *given = <const posting *>PyBytes_AS_STRING(rows)
    cdef int64_t count = PyBytes_GET_SIZE(rows) // <int64_t>sizeof(posting), first = _first_at(given, count, start)
    cdef bytes made
    cdef posting *out
    cdef posting *spare
    count -= first
    made = PyBytes_FromStringAndSize(NULL, count * sizeof(posting))
    out = <posting *>PyBytes_AS_STRING(made)
    spare = <posting *>malloc(max(count, 1) * sizeof(posting))
    if spare == NULL:
        raise MemoryError()
    with nogil:
        memcpy(out, given + first, count * sizeof(posting))
        postings_sort(out, spare, count)
    free(spare)
    return made


cdef int64_t _first_at(const posting *rows, int64_t count, int64_t offset) noexcept:
    """The first row at or behind `offset`."""
    cdef int64_t low = 0, high = count, middle
    while low < high:
        middle = (low + high) // 2
        if <int64_t>rows[middle].position < offset:
            low = middle + 1
        else:
            high = middle
    return low


cdef class Tail:
    """`Tail(start)`: rows of the batches from offset `start` to before `end`, in memory."""

    cdef posting *rows
    cdef int32_t *before  # the row before it with the same hash; -1: none
    cdef int64_t capacity
    cdef uint32_t *table  # by hash: 1 + the newest row of that hash; 0: free
    cdef int64_t slots
    cdef int64_t distinct
    cdef readonly int64_t count
    cdef readonly int64_t start
    cdef readonly int64_t end
    cdef readonly int64_t size_bytes

    def __cinit__(self, int64_t start=0):
        self.start = self.end = start
        self.capacity = ROWS_MIN
        self.slots = 2 * ROWS_MIN
        self.rows = <posting *>malloc(self.capacity * sizeof(posting))
        self.before = <int32_t *>malloc(self.capacity * sizeof(int32_t))
        self.table = <uint32_t *>calloc(self.slots, sizeof(uint32_t))
        if self.rows == NULL or self.before == NULL or self.table == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.rows)
        free(self.before)
        free(self.table)

    cdef uint32_t *_slot(self, uint64_t h) noexcept nogil:
        """Where the newest row of a hash is noted, or the free place for it."""
        cdef int64_t mask = self.slots - 1, place = <int64_t>(h >> 20) & mask
        while self.table[place] and self.rows[self.table[place] - 1].hash != h:
            place = (place + 1) & mask
        return self.table + place

    cdef int _grow_rows(self) noexcept nogil:
        cdef int64_t wanted = 2 * self.capacity
        cdef void *grown = realloc(self.rows, wanted * sizeof(posting))
        if grown == NULL:
            return -1
        self.rows = <posting *>grown
        grown = realloc(self.before, wanted * sizeof(int32_t))
        if grown == NULL:
            return -1
        self.before = <int32_t *>grown
        self.capacity = wanted
        return 0

    cdef int _grow_table(self) noexcept nogil:
        cdef uint32_t *old = self.table
        cdef uint32_t *grown = <uint32_t *>calloc(4 * self.slots, sizeof(uint32_t))
        cdef int64_t i, slots = self.slots
        if grown == NULL:
            return -1
        self.table = grown
        self.slots = 4 * slots
        for i in range(slots):
            if old[i]:
                self._slot(self.rows[old[i] - 1].hash)[0] = old[i]
        free(old)
        return 0

    cdef int _add(self, uint64_t h, uint64_t number, int64_t offset, int64_t once_from) noexcept nogil:
        """Add a row, unless there is one of this hash at or behind `once_from`. -1 without memory."""
        cdef uint32_t *slot
        if self.count == self.capacity and self._grow_rows():
            return -1
        if 2 * self.distinct >= self.slots and self._grow_table():
            return -1
        slot = self._slot(h)
        if slot[0]:
            if <int64_t>self.rows[slot[0] - 1].position >= once_from:
                return 0
        else:
            self.distinct += 1
        self.rows[self.count].hash = h
        self.rows[self.count].number = number
        self.rows[self.count].position = offset
        self.before[self.count] = <int32_t>slot[0] - 1
        self.count += 1
        slot[0] = <uint32_t>self.count
        return 0

    cdef int _add_records(self, const char *p, const char *end, int64_t count, int64_t last_delta, int64_t base) noexcept nogil:
        """The rows of a batch at offset `base`. 0; -1 without memory; -2 when a record contradicts its size."""
        cdef const char *key = NULL
        cdef const char *type_ = NULL
        cdef const char *dash
        cdef const char *tag
        cdef const char *q
        cdef int64_t key_length = -1, type_length = -1, offset, i, j, length, never = base + (<int64_t>1 << 40)
        cdef record_fields r
        cdef event_fields e
        cdef int kind, rc
        for i in range(count):
            p = record_read(p, end, &r)
            if p == NULL or r.offset_delta < 0 or r.offset_delta > last_delta:
                return -2
            offset = base + r.offset_delta
            kind = event_read(&r, &e)
            if kind == RECORD_BROKEN:
                return -2
            if kind == RECORD_STATE:
                rc = self._add(term_hash(TERM_STATE, r.key, r.key_length), 0, offset, never)
                rc |= self._add(term_hash(TERM_STATE, NULL, 0), 0, offset, base)
                if rc:
                    return -1
            if kind != RECORD_EVENT:
                key_length = -1
                continue
            if r.key_length != key_length or memcmp(r.key, key, key_length) != 0:
                key, key_length = r.key, r.key_length
                dash = <const char *>memchr(key, b"-", key_length)
                rc = self._add(term_hash(TERM_STREAM, key, key_length), e.version, offset, never)
                rc |= self._add(term_hash(TERM_CATEGORY, key, key_length if dash == NULL else dash - key), 0, offset, base)
                if rc:
                    return -1
            if e.type_length != type_length or memcmp(e.type, type_, type_length) != 0:
                type_, type_length = e.type, e.type_length
                if self._add(term_hash(TERM_TYPE, type_, type_length), 0, offset, base):
                    return -1
            q = e.tags
            for j in range(e.tag_count):
                q = tag_read(q, r.end, &tag, &length)
                if q == NULL:
                    return -2
                if tag != NULL and self._add(term_hash(TERM_TAG, tag, length), 0, offset, base):
                    return -1
        return 0

    def feed(self, Region region not None, int64_t limit_bytes):
        """Learn the batches of a region of the log that begins at `end`. Raises `CorruptionError`."""
        cdef BatchWalker walker = BatchWalker(region, limit_bytes)
        cdef int rc
        while walker.advance():
            if walker.base_offset + walker.last_offset_delta < self.end:
                continue
            if not walker.hidden:
                with nogil:
                    rc = self._add_records(
                        walker.payload, walker.payload_end, walker.count, walker.last_offset_delta, walker.base_offset
                    )
                if rc == -1:
                    raise MemoryError()
                if rc:
                    raise CorruptionError(
                        "a record contradicts its size", region.path, region.position + (walker.batch - region.data),
                        f"{walker.count} whole records", "other bytes",
                    )
            self.end = walker.base_offset + walker.last_offset_delta + 1
            self.size_bytes += walker.next_batch - walker.batch

    def feed_built(self, BatchBuilder builder not None):
        """Learn the batch that was stored at offset `end` out of this builder, without reading it again."""
        cdef int rc
        with nogil:
            rc = self._add_records(
                builder.data + BATCH_HEADER_BYTES, builder.data + builder.size_bytes, builder.count, builder.count - 1, self.end
            )
        if rc == -1:
            raise MemoryError()
        assert rc == 0, "a builder's records are whole"
        self.end += builder.count
        self.size_bytes += builder.size_bytes

    def find(self, uint64_t h):
        """The rows of a hash as (number, offset), in the order of the log."""
        cdef list found = []
        cdef int64_t place = <int64_t>self._slot(h)[0] - 1
        while place >= 0:
            found.append((self.rows[place].number, self.rows[place].position))
            place = self.before[place]
        found.reverse()
        return found

    def newest(self, uint64_t h):
        """The last row of a hash, or None."""
        cdef int64_t place = <int64_t>self._slot(h)[0] - 1
        return None if place < 0 else (self.rows[place].number, self.rows[place].position)

    def copy_rows(self):
        """All rows, in the order of the log, for `sort_rows`."""
        return (<const char *>self.rows)[:self.count * sizeof(posting)]

    def drop_before(self, int64_t offset):
        """Forget the batches before `offset` (where one begins): a run covers them."""
        cdef int64_t first = _first_at(self.rows, self.count, offset), kept = self.count - first, i
        cdef Tail fresh = Tail(offset)
        for i in range(kept):
            if fresh._add(self.rows[first + i].hash, self.rows[first + i].number, self.rows[first + i].position, <int64_t>1 << 62):
                raise MemoryError()
        self.rows, fresh.rows = fresh.rows, self.rows
        self.before, fresh.before = fresh.before, self.before
        self.table, fresh.table = fresh.table, self.table
        self.capacity, self.slots, self.distinct = fresh.capacity, fresh.slots, fresh.distinct
        self.size_bytes = 0 if kept == 0 else self.size_bytes * kept // self.count
        self.count = kept
        self.start = offset
        self.end = max(self.end, offset)
