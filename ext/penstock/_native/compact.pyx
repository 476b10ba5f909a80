"""Log compaction, a batch at a time without the GIL: the newest offset of each key, and batches without older records.

Offsets never change: a batch keeps its range, and where nothing is left of a run of batches, one empty batch keeps theirs,
so that a cleaned log is as dense as any other. Thread safety: one thread at a time for each object. Crash policy: reads maps and returns bytes; the
caller writes them (`penstock.storage.compaction`).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT32_MAX, UINT32_MAX, int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from penstock._native.format cimport *
from penstock._native.records cimport BatchWalker
from penstock._native.region cimport Region

from fastcrc.crc32 import iscsi as _crc32c

from penstock._native.builder import compressed
from penstock.errors import CorruptionError


cdef extern from *:
    """
    #include <stdlib.h>
    #include <sys/mman.h>

    typedef struct { uint64_t first; uint32_t second, place; } key_entry; /* place: offset behind the start, + 1; 0 is free */

    static inline void key_step(uint64_t *first, uint64_t *second, uint64_t word) {
        __uint128_t product = (__uint128_t)(*first ^ word) * 0x9e3779b97f4a7c15ull;
        *first = (uint64_t)product ^ *second;
        *second = (uint64_t)(product >> 64) + *second * 0xbf58476d1ce4e5b9ull;
    }
    /* 96 bits of a key, so that no two keys are ever taken for one; the seed is a secret of each run. */
    static inline void key_hash(const char *p, int64_t size, uint64_t seed, key_entry *out) {
        uint64_t first = seed ^ (uint64_t)size, second = ~seed, word;
        for (; size >= 8; p += 8, size -= 8) {
            memcpy(&word, p, 8);
            key_step(&first, &second, word);
        }
        if (size) {
            word = 0;
            memcpy(&word, p, (size_t)size);
            key_step(&first, &second, word);
        }
        key_step(&first, &second, 0x94d049bb133111ebull);
        key_step(&first, &second, seed);
        out->first = first;
        out->second = (uint32_t)(second >> 32);
    }
    /* The key of the record at `p`, not looking further; the position after the record, NULL when it contradicts itself. */
    static inline const char *record_key(const char *p, const char *end, record_fields *r) {
        int64_t size;
        p = varint_read(p, end, VARINT_MAX_BYTES, &size);
        if (!p || size < 1 || size > end - p) return NULL;
        end = p + size;
        p++;
        if (p < end && (unsigned char)*p < 0x80) p++; /* the timestamp is not asked for */
        else if (!(p = varint_read(p, end, VARLONG_MAX_BYTES, &size))) return NULL;
        if (!(p = varint_read(p, end, VARINT_MAX_BYTES, &r->offset_delta))) return NULL;
        if (!(p = varint_read(p, end, VARINT_MAX_BYTES, &r->key_length))) return NULL;
        if (r->key_length < -1 || r->key_length > end - p) return NULL;
        r->key = p;
        return end;
    }
    /* The key's entry, or the free one where it would be. */
    static inline key_entry *key_find(key_entry *entries, uint64_t mask, const key_entry *key) {
        uint64_t i = key->first & mask;
        while (entries[i].place && (entries[i].first != key->first || entries[i].second != key->second)) i = (i + 1) & mask;
        return &entries[i];
    }
    /* Zeroed, and in huge pages where there are any: entries are met at random. */
    static key_entry *key_table(int64_t capacity) {
        size_t size = (size_t)capacity * sizeof(key_entry);
        void *made = NULL;
        if (size < ((size_t)4 << 20)) return (key_entry *)calloc(1, size);
        if (posix_memalign(&made, (size_t)2 << 20, size)) return NULL;
    #ifdef MADV_HUGEPAGE
        (void)madvise(made, size, MADV_HUGEPAGE); /* a hint */
    #endif
        memset(made, 0, size);
        return (key_entry *)made;
    }
    static inline int bits_none_set(const uint64_t *bits, int64_t from, int64_t to) {
        for (; from < to && (from & 63); from++) if (bits[from >> 6] >> (from & 63) & 1) return 0;
        for (; to - from >= 64; from += 64) if (bits[from >> 6]) return 0;
        for (; from < to; from++) if (bits[from >> 6] >> (from & 63) & 1) return 0;
        return 1;
    }
    """
    ctypedef struct key_entry:
        uint64_t first
        uint32_t second
        uint32_t place
    void key_hash(const char *p, int64_t size, uint64_t seed, key_entry *out) nogil
    const char *record_key(const char *p, const char *end, record_fields *r) nogil
    key_entry *key_find(key_entry *entries, uint64_t mask, const key_entry *key) nogil
    key_entry *key_table(int64_t capacity) nogil
    int bits_none_set(const uint64_t *bits, int64_t start, int64_t stop) nogil
    void prefetch "__builtin_prefetch"(const void *p) nogil


cdef enum:
    BLOCK = 64  # records whose keys are looked up together, so that they wait for memory together


cdef class KeyMap:
    """`KeyMap(max_bytes, seed, start, end)`: key -> newest offset in [start, end), in at most `max_bytes` of memory.

    Once `seal` was called it knows of each record up to there, in one bit, whether it stays.
    """
    cdef key_entry *entries
    cdef int64_t capacity
    cdef readonly int64_t count
    cdef readonly int64_t records  # those added, and those of aborted transactions
    cdef int64_t most
    cdef uint64_t seed
    cdef uint64_t *living
    cdef readonly int64_t start, end
    cdef list always  # ranges of records that stay without a key being the reason

    def __init__(self, int64_t max_bytes, uint64_t seed, int64_t start, int64_t end):
        if end - start >= <int64_t>UINT32_MAX:
            raise ValueError(f"end - start is {end - start}; allowed is less than {UINT32_MAX}")
        self.capacity = 1 << 12
        self.most = self.capacity
        while self.most * 2 * <int64_t>sizeof(key_entry) <= max_bytes:
            self.most *= 2
        self.seed = seed
        self.entries = key_table(self.capacity)
        self.start, self.end = start, max(end, start)
        self.always = []
        if self.entries == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.entries)
        free(self.living)

    cdef bint is_living(self, int64_t offset) noexcept nogil:
        """Whether a record of [start, end) stays."""
        return self.living[(offset - self.start) >> 6] >> ((offset - self.start) & 63) & 1

    def none_living(self, int64_t first, int64_t last):
        """Whether it is known that nothing from `first` to `last` stays."""
        return self.all_dead(first, last)

    cdef bint all_dead(self, int64_t first, int64_t last) noexcept nogil:
        return self.start <= first and last < self.end and bits_none_set(self.living, first - self.start, last + 1 - self.start)

    cdef int64_t newest(self, const char *key, int64_t length) noexcept nogil:
        """The newest offset of a key, -1 for one that is not there."""
        cdef key_entry wanted
        cdef int64_t place
        key_hash(key, length, self.seed, &wanted)
        place = key_find(self.entries, self.capacity - 1, &wanted).place
        return self.start - 1 + place if place else -1

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
        with nogil:
            self.entries = key_table(self.capacity)
            if self.entries != NULL:
                for i in range(before):
                    if old[i].place:
                        place = old[i].first & (self.capacity - 1)
                        while self.entries[place].place:
                            place = (place + 1) & (self.capacity - 1)
                        self.entries[place] = old[i]
        if self.entries == NULL:
            self.entries, self.capacity = old, before
            raise MemoryError()
        free(old)
        return True

    def add(self, Region region not None, int64_t from_offset, Py_ssize_t limit_bytes, aborted=None):
        """Take in the region's records from an offset on. The offset up to which it did: less than all when it is full."""
        cdef BatchWalker walker = BatchWalker(region, limit_bytes)
        cdef int64_t reached = from_offset
        cdef int64_t keyless = 0
        walker.aborted = aborted
        while walker.advance():
            if walker.base_offset + walker.last_offset_delta < from_offset:
                continue
            if walker.control:
                self.always.append((walker.base_offset, walker.base_offset + walker.last_offset_delta))
            elif not walker.hidden:
                if not self.fits(walker.count):
                    return reached
                with nogil:
                    keyless = self.add_batch(walker, from_offset)
                if keyless < 0:
                    raise _broken(walker)
                if keyless:
                    self.keep_keyless(walker)
            if not walker.control:
                self.records += walker.count
            reached = walker.base_offset + walker.last_offset_delta + 1
        return reached

    cdef int64_t add_batch(self, BatchWalker walker, int64_t least) noexcept nogil:
        """How many records without a key there were; -1 when one contradicts itself."""
        cdef key_entry keys[BLOCK]
        cdef key_entry *entry
        cdef record_fields fields
        cdef const char *p = walker.payload
        cdef const char *end = walker.payload_end
        # plain locals: the compiler would read the fields again after every store
        cdef int64_t left = walker.count, mask = self.capacity - 1, keyless = 0, added = 0, size, i
        cdef int64_t first = walker.base_offset - self.start, most = self.end - self.start, place
        cdef int64_t last_offset_delta = walker.last_offset_delta
        cdef uint64_t seed = self.seed
        cdef key_entry *entries = self.entries
        least -= self.start
        while left > 0:
            size = min(left, <int64_t>BLOCK)
            for i in range(size):
                p = record_key(p, end, &fields)
                if p == NULL or fields.offset_delta < 0 or fields.offset_delta > last_offset_delta:
                    return -1
                place = first + fields.offset_delta
                keys[i].place = 0
                if place < least or place >= most:
                    continue
                if fields.key_length < 0:
                    keyless += 1
                    continue
                key_hash(fields.key, fields.key_length, seed, &keys[i])
                keys[i].place = <uint32_t>(place + 1)
                prefetch(&entries[keys[i].first & mask])
            for i in range(size):
                if keys[i].place:
                    entry = key_find(entries, mask, &keys[i])
                    added += entry.place == 0
                    entry[0] = keys[i]
            left -= size
        self.count += added
        return keyless

    cdef int keep_keyless(self, BatchWalker walker) except -1:
        """Records without a key, from before the topic was compacted, stay."""
        cdef record_fields fields
        cdef const char *p = walker.payload
        cdef int64_t i
        for i in range(walker.count):
            p = record_key(p, walker.payload_end, &fields)
            if fields.key_length < 0:
                self.always.append((walker.base_offset + fields.offset_delta, walker.base_offset + fields.offset_delta))
        return 0

    def seal(self, int64_t end):
        """All records of [start, end) were added."""
        cdef int64_t i, bits, first, last
        self.end = max(min(end, self.end), self.start)
        bits = self.end - self.start
        free(self.living)
        self.living = <uint64_t *>calloc(bits // 64 + 1, 8)
        if self.living == NULL:
            raise MemoryError()
        with nogil:
            for i in range(self.capacity):
                if self.entries[i].place and self.entries[i].place <= bits:
                    self.set_living(self.entries[i].place - 1)
        for first, last in self.always:
            for i in range(max(first, self.start), min(last + 1, self.end)):
                self.set_living(i - self.start)

    cdef void set_living(self, int64_t bit) noexcept nogil:
        self.living[bit >> 6] |= <uint64_t>1 << (bit & 63)


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
                    kept = self.filter(self.keys, walker, self.out + start + BATCH_HEADER_BYTES, &newest_ms)
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
                    self.filter(self.keys, walker, self.out + self.size + BATCH_HEADER_BYTES, &newest_ms)
            if kept == walker.count:
                self.copy(walker)
            else:
                self.finish_batch(walker, kept, newest_ms)
        return PyBytes_FromStringAndSize(self.out, self.size)

    def leave_out_all(self, int64_t first, int64_t last, int64_t newest_ms, int64_t records):
        """As `clean` of batches from `first` to `last`, of which the keys know that nothing stays."""
        self.removed += records
        self.leave_out(first, last, newest_ms)

    def finish(self):
        """The empty batch that is still due, as bytes."""
        self.size = 0
        self.write_empty()
        return PyBytes_FromStringAndSize(self.out, self.size) if self.size else b""

    cdef int64_t filter(self, KeyMap keys, BatchWalker walker, char *out, int64_t *newest_ms) noexcept nogil:
        """Copy the records that stay, up to `written`; how many, or -1 when a record contradicts itself."""
        cdef record_fields fields
        cdef const char *p = walker.payload
        cdef const char *begin
        cdef int64_t kept = 0, offset, time, i
        newest_ms[0] = -1
        for i in range(walker.count):
            begin = p
            p = record_read(p, walker.payload_end, &fields)
            if p == NULL:
                return -1
            offset = walker.base_offset + fields.offset_delta
            time = walker.max_timestamp if walker.log_append_time else walker.base_timestamp + fields.timestamp_delta
            if keys.start <= offset < keys.end:
                if not keys.is_living(offset):
                    continue
            elif offset < keys.start and fields.key_length >= 0 and keys.newest(fields.key, fields.key_length) > offset:
                continue
            if (
                fields.key_length >= 0 and fields.value_length < 0 and offset < self.tombstones_below
                and time < self.tombstones_before_ms
            ):
                continue
            memcpy(out, begin, p - begin)
            out += p - begin
            kept += 1
            newest_ms[0] = max(newest_ms[0], time)
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
        """Pass the batches of which nothing stays: reading the keys has checked them before."""
        cdef const char *p = walker.next_batch
        cdef int64_t base, delta
        while walker.end - p >= BATCH_HEADER_BYTES:
            base, delta = <int64_t>load_be64(p), <int32_t>load_be32(p + BATCH_LAST_OFFSET_DELTA)
            if not self.keys.all_dead(base, base + delta):
                break
            self.removed += <int32_t>load_be32(p + BATCH_COUNT)
            self.leave_out(base, base + delta, <int64_t>load_be64(p + BATCH_MAX_TIMESTAMP))
            p += <int64_t><int32_t>load_be32(p + BATCH_LENGTH) + BATCH_LOG_OVERHEAD
        walker.next_batch = p
        return 0

    cdef int leave_out(self, int64_t first, int64_t last, int64_t newest_ms) except -1:
        if self.empty_from >= 0 and last - self.empty_from >= INT32_MAX:
            self.write_empty()
        if self.empty_from < 0:
            self.empty_from = first
            self.empty_ms = newest_ms
        self.empty_to = last
        self.empty_ms = max(self.empty_ms, newest_ms)
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
