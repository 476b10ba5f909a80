"""Reading stored batches: `Record`, and the cursor that walks a region batch by batch.

Every byte is bounds-checked before it is used; what contradicts itself is a `CorruptionError` that says where. The CRC is
checked once a batch, before anything in it is believed. Thread safety: one thread at a time per cursor.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, int16_t, int32_t, int64_t, uint32_t
from libc.string cimport memset

from penstock._native.format cimport *
from penstock._native.region cimport Region

from fastcrc.crc32 import iscsi as _crc32c

from penstock.errors import CorruptionError

cdef object _decompress = None
DECOMPRESSED_LIMIT_BYTES = 64 << 20


def set_decompressor(decompress):
    """Register `decompress(codec_id, data, limit_bytes) -> bytes` (done by `penstock.storage.compression`)."""
    global _decompress
    _decompress = decompress


@cython.no_gc
cdef class Source:
    """Topic and partition, shared by the records that came from there."""

    def __init__(self, str topic not None, int partition):
        self.topic = topic
        self.partition = partition


@cython.no_gc
@cython.freelist(512)
cdef class Record:
    """One stored record. `key` and `value`: bytes or None. `headers`: a new list of (str, bytes or None)."""

    def __init__(self, str topic not None, int partition, int64_t offset, int64_t timestamp_ms, key, value, headers=()):
        self.source = Source(topic, partition)
        self.offset = offset
        self.timestamp_ms = timestamp_ms
        self.key = key
        self.value = value
        self.pairs = tuple(headers) or None

    @property
    def topic(self):
        """Name of the topic."""
        return self.source.topic

    @property
    def partition(self):
        """Number of the partition."""
        return self.source.partition

    @property
    def headers(self):
        """The headers, in the order in which they were given."""
        return [] if self.pairs is None else list(self.pairs)

    def _fields(self):
        return (self.topic, self.partition, self.offset, self.timestamp_ms, self.key, self.value, self.pairs or ())

    def __eq__(self, other):
        return isinstance(other, Record) and self._fields() == (<Record>other)._fields()

    def __hash__(self):
        return hash(self._fields())

    def __reduce__(self):
        return Record, self._fields()

    def __repr__(self):
        return (
            f"Record(topic={self.topic!r}, partition={self.partition}, offset={self.offset}, "
            f"timestamp_ms={self.timestamp_ms}, key={self.key!r}, value={self.value!r}, headers={self.headers!r})"
        )


@cython.no_gc
@cython.freelist(512)
cdef class RecordMetadata:
    """Where a record was stored."""

    def __init__(self, str topic not None, int partition, int64_t offset, int64_t timestamp_ms):
        self.source = Source(topic, partition)
        self.offset = offset
        self.timestamp_ms = timestamp_ms

    @property
    def topic(self):
        """Name of the topic."""
        return self.source.topic

    @property
    def partition(self):
        """Number of the partition."""
        return self.source.partition

    def _fields(self):
        return (self.topic, self.partition, self.offset, self.timestamp_ms)

    def __eq__(self, other):
        return isinstance(other, RecordMetadata) and self._fields() == (<RecordMetadata>other)._fields()

    def __hash__(self):
        return hash(self._fields())

    def __reduce__(self):
        return RecordMetadata, self._fields()

    def __repr__(self):
        return (
            f"RecordMetadata(topic={self.topic!r}, partition={self.partition}, offset={self.offset}, "
            f"timestamp_ms={self.timestamp_ms})"
        )


cdef RecordMetadata make_metadata(Source source, int64_t offset, int64_t timestamp_ms):
    cdef RecordMetadata made = RecordMetadata.__new__(RecordMetadata)
    made.source = source
    made.offset = offset
    made.timestamp_ms = timestamp_ms
    return made


cdef class _Window:
    """A read-only view of bytes that somebody else keeps alive."""
    cdef const char *data
    cdef Py_ssize_t size

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, <void *>self.data, self.size, 1, flags)

    def __releasebuffer__(self, Py_buffer *view):
        pass


cdef class BatchWalker:
    """Checks and opens the batches of a region one after the other."""

    def __init__(self, Region region not None, Py_ssize_t limit_bytes=DECOMPRESSED_LIMIT_BYTES):
        self.region = region
        self.limit_bytes = limit_bytes
        self.next_batch = region.data
        self.end = region.data + region.size

    cdef object corrupt(self, str message, expected, got):
        cdef int64_t position = self.region.position + (self.next_batch - self.region.data)
        return CorruptionError(message, self.region.path, position, expected, got)

    cdef int advance(self) except -1:
        """Open the next batch. 1, or 0 at the end of the region."""
        cdef const char *p = self.next_batch
        cdef int64_t size, most
        cdef uint32_t stored, computed
        cdef int attributes
        cdef _Window window
        if p >= self.end:
            return 0
        if self.end - p < BATCH_HEADER_BYTES:
            raise self.corrupt("a batch header is cut", BATCH_HEADER_BYTES, self.end - p)
        size = <int64_t><int32_t>load_be32(p + BATCH_LENGTH) + BATCH_LOG_OVERHEAD
        if size < BATCH_HEADER_BYTES or size > self.end - p:
            raise self.corrupt("a batch claims an impossible size", f"{BATCH_HEADER_BYTES} to {self.end - p}", size)
        if p[BATCH_MAGIC] != MAGIC_V2:
            raise self.corrupt("unknown record batch version", MAGIC_V2, p[BATCH_MAGIC])
        window = _Window.__new__(_Window)
        window.data = p + BATCH_ATTRIBUTES
        window.size = size - BATCH_ATTRIBUTES
        stored = load_be32(p + BATCH_CRC)
        computed = _crc32c(window)
        if stored != computed:
            raise self.corrupt("CRC-32C does not match", f"0x{stored:08x}", f"0x{computed:08x}")
        attributes = <int16_t>load_be16(p + BATCH_ATTRIBUTES)
        self.codec = attributes & ATTRIBUTE_CODEC_MASK
        self.log_append_time = (attributes & ATTRIBUTE_LOG_APPEND_TIME) != 0
        self.control = (attributes & ATTRIBUTE_CONTROL) != 0
        self.base_offset = <int64_t>load_be64(p)
        self.hidden = self.control
        if self.aborted is not None and attributes & ATTRIBUTE_TRANSACTIONAL and not self.control:
            self.hidden = (<int64_t>load_be64(p + BATCH_PRODUCER_ID), self.base_offset) in self.aborted
        self.last_offset_delta = <int32_t>load_be32(p + BATCH_LAST_OFFSET_DELTA)
        self.base_timestamp = <int64_t>load_be64(p + BATCH_BASE_TIMESTAMP)
        self.max_timestamp = <int64_t>load_be64(p + BATCH_MAX_TIMESTAMP)
        self.count = <int32_t>load_be32(p + BATCH_COUNT)
        if self.last_offset_delta < 0 or self.count < 0 or self.count > self.last_offset_delta + 1:
            raise self.corrupt("a batch header contradicts itself", f"at most {self.last_offset_delta + 1} records", self.count)
        if self.base_offset < self.least_offset or self.base_offset > INT64_MAX - 1 - self.last_offset_delta:
            raise self.corrupt("a base offset is out of order", f"{self.least_offset} or more", self.base_offset)
        if self.codec:
            self._unpack(p, size)
        else:
            self.payload = p + BATCH_HEADER_BYTES
            self.payload_end = p + size
            self.payload_owner = None
        most = (self.payload_end - self.payload) // RECORD_BYTES_MIN
        if self.count > most:
            raise self.corrupt("a batch claims more records than it has bytes", f"at most {most} records", self.count)
        self.least_offset = self.base_offset + self.last_offset_delta + 1
        self.batch = p
        self.next_batch = p + size
        return 1

    cdef _unpack(self, const char *p, int64_t size):
        cdef _Window window = _Window.__new__(_Window)
        cdef bytes plain
        window.data = p + BATCH_HEADER_BYTES
        window.size = size - BATCH_HEADER_BYTES
        try:
            plain = _decompress(self.codec, window, self.limit_bytes)
        except CorruptionError as error:
            raise self.corrupt(error.message, error.expected, error.got) from error
        self.payload_owner = plain
        self.payload = plain
        self.payload_end = self.payload + len(plain)


cdef class RecordCursor:
    """Walks the records of regions of one partition: `feed(region, from_offset)`, then `next_record` or `take`.

    `next_offset` is the offset of the next record to be handed out. Control batches are passed over.
    """

    def __init__(self, str topic not None, int partition):
        self.source = Source(topic, partition)
        self.decompressed_limit_bytes = DECOMPRESSED_LIMIT_BYTES
        self.next_offset = -1

    def feed(self, Region region not None, int64_t from_offset):
        """Go on with this region, from the first record at or after `from_offset`."""
        self.walker = BatchWalker(region, self.decompressed_limit_bytes)
        self.walker.aborted = self.aborted
        self.opened -= self.left
        self.left = 0
        self.from_offset = self.next_offset = from_offset

    cdef int _open_batch(self) except -1:
        """Open the next batch with records. 1, or 0 at the end of the region."""
        cdef BatchWalker walker = self.walker
        if walker is None:
            return 0
        while walker.advance():
            if walker.base_offset + walker.last_offset_delta < self.from_offset:
                continue
            if walker.hidden or walker.count == 0:
                self.next_offset = walker.base_offset + walker.last_offset_delta + 1
                continue
            self.left = walker.count
            self.opened += walker.count
            self.next_byte = walker.payload
            memset(&self.shape, 0, sizeof(self.shape))
            return 1
        return 0

    cdef object _advance(self):
        cdef BatchWalker walker
        cdef record_fields *fields = &self.shape.r
        cdef const char *after
        cdef int64_t offset
        cdef Record record
        while True:
            if self.left == 0 and not self._open_batch():
                return None
            walker = self.walker
            after = record_follow(self.next_byte, walker.payload_end, &self.shape)
            if after == NULL or fields.offset_delta < 0 or fields.offset_delta > walker.last_offset_delta:
                raise self._broken(walker.count - self.left)
            if self.left == 1 and after != walker.payload_end:
                raise self._broken(walker.count)
            offset = walker.base_offset + fields.offset_delta
            if offset < self.from_offset:
                self.next_byte = after
                self.left -= 1
                self.opened -= 1
                continue
            record = Record.__new__(Record)
            record.source = self.source
            record.offset = offset
            record.timestamp_ms = walker.max_timestamp if walker.log_append_time else walker.base_timestamp + fields.timestamp_delta
            if fields.key_length >= 0:
                record.key = PyBytes_FromStringAndSize(fields.key, fields.key_length)
            if fields.value_length >= 0:
                record.value = PyBytes_FromStringAndSize(fields.value, fields.value_length)
            if fields.header_count:
                record.pairs = self._headers(fields)
            self.next_byte = after  # only now: a record that cannot be read is refused again by the next call
            self.left -= 1
            self.next_offset = offset + 1
            if self.left == 0:
                self.next_offset = walker.base_offset + walker.last_offset_delta + 1
            return record

    cdef tuple _headers(self, record_fields *fields):
        cdef const char *p = fields.headers
        cdef int64_t length, i
        cdef list pairs = []
        for i in range(fields.header_count):
            p = varint_read(p, fields.end, VARINT_MAX_BYTES, &length)
            if p == NULL or length < 0 or length > fields.end - p:
                raise self._broken(self.walker.count - self.left)
            name = p[:length].decode("utf-8", "surrogateescape")
            p = varint_read(p + length, fields.end, VARINT_MAX_BYTES, &length)
            if p == NULL or length < -1 or length > fields.end - p:
                raise self._broken(self.walker.count - self.left)
            if length < 0:
                pairs.append((name, None))
            else:
                pairs.append((name, PyBytes_FromStringAndSize(p, length)))
                p += length
        if p != fields.end:
            raise self._broken(self.walker.count - self.left)
        return tuple(pairs)

    cdef object _broken(self, int64_t number):
        cdef BatchWalker walker = self.walker
        cdef int64_t position = walker.region.position + (walker.batch - walker.region.data)
        return CorruptionError(
            f"record {number} of the batch contradicts its size", walker.region.path, position, f"{walker.count} whole records", "other bytes"
        )

    cpdef next_record(self):
        """The next record, or None at the end of the region. Raises `CorruptionError`."""
        return self._advance()

    cpdef Py_ssize_t take(self, list out, Py_ssize_t max_records) except -1:
        """Append up to `max_records` records to `out`; returns how many."""
        cdef Py_ssize_t taken = 0
        while taken < max_records:
            record = self._advance()
            if record is None:
                break
            out.append(record)
            taken += 1
        return taken
