"""Log compaction, a batch at a time without the GIL: the newest offset of each key, and batches without older records.

Offsets never change: a batch keeps its range, and where nothing is left of a run of batches, one empty batch keeps theirs,
so that a cleaned log is as dense as any other. Thread safety: one thread at a time for each object.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from penstock._native.format cimport *
from penstock._native.records cimport BatchWalker
from penstock._native.region cimport Region

from crc32c import crc32c as _crc32c

from penstock._native.builder import compressed
from penstock.errors import CorruptionError


cdef extern from *:
    """
    typedef struct { uint64_t first, second; } key_digest;
    static inline key_digest key_step(key_digest state, uint64_t word) {
        __uint128_t product = (__uint128_t)(state.first ^ word) * 0x9e3779b97f4a7c15ull;
        key_digest next = {(uint64_t)product ^ state.second, (uint64_t)(product >> 64) + state.second * 0xbf58476d1ce4e5b9ull};
        return next;
    }
    /* 128 bits of a key, so that no two keys are ever taken for one; the seed is a secret of each run. */
    static inline key_digest key_hash(const char *p, int64_t size, uint64_t seed) {
        key_digest state = {seed ^ (uint64_t)size, ~seed};
        uint64_t word;
        for (; size >= 8; p += 8, size -= 8) {
            memcpy(&word, p, 8);
            state = key_step(state, word);
        }
        if (size) {
            word = 0;
            memcpy(&word, p, (size_t)size);
            state = key_step(state, word);
        }
        state = key_step(state, 0x94d049bb133111ebull);
        state = key_step(state, seed);
        state.second |= 1; /* 0 is free */
        return state;
    }
    static inline int bits_all_set(const uint64_t *bits, int64_t from, int64_t to) {
        for (; from < to && (from & 63); from++) if (!(bits[from >> 6] >> (from & 63) & 1)) return 0;
        for (; to - from >= 64; from += 64) if (~bits[from >> 6]) return 0;
        for (; from < to; from++) if (!(bits[from >> 6] >> (from & 63) & 1)) return 0;
        return 1;
    }
    """
    ctypedef struct key_digest:
        uint64_t first
        uint64_t second
    key_digest key_hash(const char *p, int64_t size, uint64_t seed) nogil
    int bits_all_set(const uint64_t *bits, int64_t start, int64_t stop) nogil
    void prefetch "__builtin_prefetch"(const void *p) nogil


cdef enum:
    BLOCK = 32  # records whose keys are looked up together, so that they wait for memory together


cdef struct keyed_record:
    const char *begin
    const char *end
    int64_t offset
    int64_t time
    key_digest key  # second 0: no key
    bint null_value


cdef struct key_entry:
    key_digest key  # second 0: free
    int64_t offset


cdef class KeyMap:
    """`KeyMap(max_bytes, seed, start, end)`: key -> newest offset, in at most `max_bytes` of memory.

    Of the records in [start, end) it also notes which are obsolete, a bit each, so that they need not be looked at again.
    """
    cdef key_entry *entries
    cdef int64_t capacity
    cdef readonly int64_t count
    cdef int64_t most
    cdef uint64_t seed
    cdef uint64_t *obsolete
    cdef int64_t start, end

    def __init__(self, int64_t max_bytes, uint64_t seed, int64_t start, int64_t end):
        self.capacity = 1 << 12
        self.most = self.capacity
        while self.most * 2 * <int64_t>sizeof(key_entry) <= max_bytes:
            self.most *= 2
        self.seed = seed
        self.entries = <key_entry *>calloc(self.capacity, sizeof(key_entry))
        self.start, self.end = start, max(end, start)
        self.obsolete = <uint64_t *>calloc((self.end - self.start) // 64 + 1, 8)
        if self.entries == NULL or self.obsolete == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.entries)
        free(self.obsolete)

    cdef bint is_obsolete(self, int64_t offset) noexcept nogil:
        """Whether a record of the noted range has a newer one."""
        return self.obsolete[(offset - self.start) >> 6] >> ((offset - self.start) & 63) & 1

    cdef bint all_obsolete(self, int64_t first, int64_t last) noexcept nogil:
        """Whether all records from `first` to `last` are noted as obsolete."""
        return self.start <= first and last < self.end and bits_all_set(self.obsolete, first - self.start, last + 1 - self.start)

    cdef key_entry *find(self, key_digest key) noexcept nogil:
        """The key's entry, or the free one where it would be."""
        cdef int64_t place = key.first & (self.capacity - 1)
        while self.entries[place].key.second and (
            self.entries[place].key.first != key.first or self.entries[place].key.second != key.second
        ):
            place = (place + 1) & (self.capacity - 1)
        return &self.entries[place]

    cdef const char *read_block(self, BatchWalker walker, const char *p, int64_t count, keyed_record *out) noexcept nogil:
        """Parse so many records and hash their keys. Where the next one begins, or NULL when one contradicts itself."""
        cdef record_fields fields
        cdef int64_t i
        for i in range(count):
            out[i].begin = p
            p = record_read(p, walker.payload_end, &fields)
            if p == NULL:
                return NULL
            out[i].end = p
            out[i].offset = walker.base_offset + fields.offset_delta
            out[i].time = walker.max_timestamp if walker.log_append_time else walker.base_timestamp + fields.timestamp_delta
            out[i].null_value = fields.value_length < 0
            out[i].key.second = 0
            if fields.key_length >= 0:
                out[i].key = key_hash(fields.key, fields.key_length, self.seed)
                prefetch(&self.entries[out[i].key.first & (self.capacity - 1)])
        return p

    cdef bint fits(self, int64_t more) except? 0:
        """Room for so many more keys, growing if need be; an empty map takes any one batch."""
        cdef key_entry *old = self.entries
        cdef int64_t i, place, before = self.capacity
        while (self.count + more) * 4 > self.capacity * 3:
            if self.capacity >= self.most and self.count:
                return False
            self.capacity *= 2
        if self.capacity == before:
            return True
        self.entries = <key_entry *>calloc(self.capacity, sizeof(key_entry))
        if self.entries == NULL:
            self.entries, self.capacity = old, before
            raise MemoryError()
        for i in range(before):
            if old[i].key.second:
                place = old[i].key.first & (self.capacity - 1)
                while self.entries[place].key.second:
                    place = (place + 1) & (self.capacity - 1)
                self.entries[place] = old[i]
        free(old)
        return True

    def add(self, Region region not None, int64_t from_offset, Py_ssize_t limit_bytes, aborted=None):
        """Take in the region's records from an offset on. The offset up to which it did: less than all when it is full."""
        cdef BatchWalker walker = BatchWalker(region, limit_bytes)
        cdef int64_t reached = from_offset
        cdef bint good = True
        walker.aborted = aborted
        while walker.advance():
            if walker.base_offset + walker.last_offset_delta < from_offset:
                continue
            if not walker.hidden:
                if not self.fits(walker.count):
                    return reached
                with nogil:
                    good = self.add_batch(walker, from_offset)
                if not good:
                    raise _broken(walker)
            reached = walker.base_offset + walker.last_offset_delta + 1
        return reached

    cdef bint add_batch(self, BatchWalker walker, int64_t least) noexcept nogil:
        cdef keyed_record block[BLOCK]
        cdef key_entry *entry
        cdef const char *p = walker.payload
        cdef int64_t left = walker.count, size, i
        while left > 0:
            size = min(left, <int64_t>BLOCK)
            p = self.read_block(walker, p, size, block)
            if p == NULL:
                return False
            for i in range(size):
                if block[i].key.second and block[i].offset >= least:
                    entry = self.find(block[i].key)
                    if not entry.key.second:
                        entry.key = block[i].key
                        self.count += 1
                    elif self.start <= entry.offset < self.end:
                        self.obsolete[(entry.offset - self.start) >> 6] |= <uint64_t>1 << ((entry.offset - self.start) & 63)
                    entry.offset = block[i].offset
            left -= size
        return True


cdef object _broken(BatchWalker walker):
    return CorruptionError(
        "a record of the batch contradicts its size", walker.region.path,
        walker.region.position + (walker.batch - walker.region.data), f"{walker.count} whole records", "other bytes",
    )


cdef class Cleaner:
    """Rewrites batches without the records that a newer one of their key made obsolete.

    `Cleaner(keys, tombstones_below, tombstones_before_ms, limit_bytes)`: records without a value are dropped as well
    when their offset is below the one and their timestamp before the other.
    """
    cdef KeyMap keys
    cdef int64_t tombstones_below, tombstones_before_ms
    cdef Py_ssize_t limit_bytes
    cdef readonly int64_t kept, removed
    cdef char *out
    cdef char *written  # where `filter` stopped
    cdef Py_ssize_t size, capacity
    cdef int64_t empty_from, empty_to, empty_ms  # a run of batches of which nothing is left; none when from is -1

    def __init__(self, KeyMap keys not None, int64_t tombstones_below, int64_t tombstones_before_ms, Py_ssize_t limit_bytes):
        self.keys = keys
        self.tombstones_below = tombstones_below
        self.tombstones_before_ms = tombstones_before_ms
        self.limit_bytes = limit_bytes
        self.empty_from = -1

    def __dealloc__(self):
        free(self.out)

    cdef int reserve(self, Py_ssize_t more) except -1:
        cdef char *grown
        if self.size + more <= self.capacity:
            return 0
        grown = <char *>realloc(self.out, (self.size + more) * 2)
        if grown == NULL:
            raise MemoryError()
        self.out, self.capacity = grown, (self.size + more) * 2
        return 0

    def clean(self, Region region not None, aborted=None):
        """What is left of the region's batches, as bytes."""
        cdef BatchWalker walker = BatchWalker(region, self.limit_bytes)
        cdef int64_t kept, newest_ms = 0
        cdef Py_ssize_t start
        self.size = 0
        walker.aborted = aborted
        while True:
            self.skip(walker)
            if not walker.advance():
                break
            if walker.control:
                self.write_empty()
                self.copy(walker)
                continue
            self.reserve(BATCH_HEADER_BYTES + (walker.payload_end - walker.payload))
            start = self.size
            kept = 0
            if not walker.hidden:
                with nogil:
                    kept = self.filter(walker, self.out + start + BATCH_HEADER_BYTES, &newest_ms)
                if kept < 0:
                    raise _broken(walker)
            self.kept += kept
            self.removed += walker.count - kept
            if kept == 0:
                self.leave_out(walker.base_offset, walker.base_offset + walker.last_offset_delta, walker.max_timestamp)
                continue
            self.size = start  # what was filtered may have to make room for an empty batch
            if self.empty_from >= 0:
                self.write_empty()
                self.reserve(BATCH_HEADER_BYTES + (walker.payload_end - walker.payload))
                with nogil:
                    self.filter(walker, self.out + self.size + BATCH_HEADER_BYTES, &newest_ms)
            if kept == walker.count:
                self.copy(walker)
            else:
                self.finish_batch(walker, kept, newest_ms)
        return PyBytes_FromStringAndSize(self.out, self.size)

    def finish(self):
        """The empty batch that is still due, as bytes."""
        self.size = 0
        self.write_empty()
        return PyBytes_FromStringAndSize(self.out, self.size) if self.size else b""

    cdef int64_t filter(self, BatchWalker walker, char *out, int64_t *newest_ms) noexcept nogil:
        """Copy the records that stay, up to `written`; how many, or -1 when a record contradicts itself."""
        cdef keyed_record block[BLOCK]
        cdef key_entry *entry
        cdef const char *p = walker.payload
        cdef int64_t left = walker.count, kept = 0, size, i
        newest_ms[0] = -1
        while left > 0:
            size = min(left, <int64_t>BLOCK)
            p = self.keys.read_block(walker, p, size, block)
            if p == NULL:
                return -1
            for i in range(size):
                if self.keys.start <= block[i].offset < self.keys.end:
                    if self.keys.is_obsolete(block[i].offset):
                        continue
                elif block[i].key.second:
                    entry = self.keys.find(block[i].key)
                    if entry.key.second and entry.offset > block[i].offset:
                        continue
                if block[i].key.second:
                    if (
                        block[i].null_value and block[i].offset < self.tombstones_below
                        and block[i].time < self.tombstones_before_ms
                    ):
                        continue
                memcpy(out, block[i].begin, block[i].end - block[i].begin)
                out += block[i].end - block[i].begin
                kept += 1
                newest_ms[0] = max(newest_ms[0], block[i].time)
            left -= size
        self.written = out
        return kept

    cdef int copy(self, BatchWalker walker) except -1:
        """The batch as it is."""
        cdef Py_ssize_t size = walker.next_batch - walker.batch
        self.reserve(size)
        memcpy(self.out + self.size, walker.batch, size)
        self.size += size
        return 0

    cdef int finish_batch(self, BatchWalker walker, int64_t kept, int64_t newest_ms) except -1:
        """Header, compression and checksum for the records that `filter` put behind the header's place."""
        cdef char *batch = self.out + self.size
        cdef Py_ssize_t size = self.written - batch
        cdef bytes packed
        memcpy(batch, walker.batch, BATCH_HEADER_BYTES)
        if walker.codec:
            packed = compressed(walker.codec, PyBytes_FromStringAndSize(batch + BATCH_HEADER_BYTES, size - BATCH_HEADER_BYTES))
            size = BATCH_HEADER_BYTES + PyBytes_GET_SIZE(packed)
            self.reserve(size)
            batch = self.out + self.size
            memcpy(batch + BATCH_HEADER_BYTES, PyBytes_AS_STRING(packed), PyBytes_GET_SIZE(packed))
        store_be32(batch + BATCH_LENGTH, <uint32_t>(size - BATCH_LOG_OVERHEAD))
        store_be64(batch + BATCH_MAX_TIMESTAMP, <uint64_t>newest_ms)
        store_be32(batch + BATCH_COUNT, <uint32_t>kept)
        self.seal(size)
        return 0

    cdef int seal(self, Py_ssize_t size) except -1:
        """Checksum of the batch at the end of the output."""
        cdef char *batch = self.out + self.size
        crc = _crc32c(PyBytes_FromStringAndSize(batch + BATCH_ATTRIBUTES, size - BATCH_ATTRIBUTES))
        store_be32(batch + BATCH_CRC, <uint32_t>crc)
        self.size += size
        return 0

    cdef int skip(self, BatchWalker walker) except -1:
        """Pass the batches of which every record is noted as obsolete: reading the keys has checked them before."""
        cdef const char *p = walker.next_batch
        cdef int64_t base, delta, count
        while walker.end - p >= BATCH_HEADER_BYTES:
            base, delta = <int64_t>load_be64(p), <int32_t>load_be32(p + BATCH_LAST_OFFSET_DELTA)
            count = <int32_t>load_be32(p + BATCH_COUNT)
            if count != delta + 1 or not self.keys.all_obsolete(base, base + delta):
                break
            self.removed += count
            self.leave_out(base, base + delta, <int64_t>load_be64(p + BATCH_MAX_TIMESTAMP))
            p += <int64_t><int32_t>load_be32(p + BATCH_LENGTH) + BATCH_LOG_OVERHEAD
        walker.next_batch = p
        return 0

    cdef int leave_out(self, int64_t first, int64_t last, int64_t newest_ms) except -1:
        if self.empty_from >= 0 and last - self.empty_from >= INT32_MAX:
            self.write_empty()
        if self.empty_from < 0:
            self.empty_from = first
        self.empty_to = last
        self.empty_ms = newest_ms
        return 0

    cdef int write_empty(self) except -1:
        """A batch without records that keeps the offsets of those that are gone."""
        cdef char *batch
        if self.empty_from < 0:
            return 0
        self.reserve(BATCH_HEADER_BYTES)
        batch = self.out + self.size
        memset(batch, 0, BATCH_HEADER_BYTES)
        store_be64(batch + BATCH_BASE_OFFSET, <uint64_t>self.empty_from)
        store_be32(batch + BATCH_LENGTH, BATCH_HEADER_BYTES - BATCH_LOG_OVERHEAD)
        batch[BATCH_MAGIC] = MAGIC_V2
        store_be32(batch + BATCH_LAST_OFFSET_DELTA, <uint32_t>(self.empty_to - self.empty_from))
        store_be64(batch + BATCH_BASE_TIMESTAMP, <uint64_t>self.empty_ms)
        store_be64(batch + BATCH_MAX_TIMESTAMP, <uint64_t>self.empty_ms)
        store_be64(batch + BATCH_PRODUCER_ID, <uint64_t>-1)
        store_be16(batch + BATCH_PRODUCER_EPOCH, 0xFFFF)
        store_be32(batch + BATCH_BASE_SEQUENCE, 0xFFFFFFFF)
        self.empty_from = -1
        return self.seal(BATCH_HEADER_BYTES)
