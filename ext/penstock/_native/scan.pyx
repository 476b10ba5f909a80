"""Walking the batches of a log file: headers, CRC, records; and finding the next good batch after bad bytes.

Every byte is bounds-checked before it is used, so any file is safe to scan: empty, cut anywhere, random. What is found
is copied out of the map, so it stays valid when the file is cut afterwards. Thread safety: one thread at a time.
Crash policy: nothing is written; what a crash left is reported, not judged.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int16_t, int32_t, int64_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp

from penstock._native.format cimport *
from penstock._native.mapping cimport Mapping
from penstock._native.region cimport Region

from fastcrc.crc32 import iscsi as _crc32c

cdef int64_t MAX_OFFSET = 2**62

cdef enum:
    MAX_CODEC = 4
    MAX_RELATIVE_OFFSET = 0x7FFFFFFF

cdef struct batch_facts:
    int64_t position, base_offset, base_timestamp, max_timestamp, producer_id
    int32_t size, last_offset_delta, count, base_sequence, leader_epoch
    uint32_t crc
    int32_t attributes, producer_epoch

cdef enum:
    FINE, CUT_HEADER, CUT_BATCH, BAD_SIZE, BAD_MAGIC, BAD_HEADER, BAD_OFFSET, BAD_CRC


cdef class BatchFacts:
    """What the header of one stored batch says, and where it lies."""
    cdef batch_facts f

    @property
    def position(self):
        """First byte of the batch in its file."""
        return self.f.position

    @property
    def end_position(self):
        """First byte after the batch."""
        return self.f.position + self.f.size

    @property
    def size_bytes(self):
        """Bytes of the batch, header included."""
        return self.f.size

    @property
    def base_offset(self):
        """Offset of the first record."""
        return self.f.base_offset

    @property
    def last_offset(self):
        """Offset of the last record."""
        return self.f.base_offset + self.f.last_offset_delta

    @property
    def count(self):
        """Number of records."""
        return self.f.count

    @property
    def base_timestamp_ms(self):
        """Timestamp to which those of the records are relative."""
        return self.f.base_timestamp

    @property
    def max_timestamp_ms(self):
        """Largest timestamp in the batch."""
        return self.f.max_timestamp

    @property
    def codec(self):
        """Kafka's id of the compression codec; 0 is none."""
        return self.f.attributes & ATTRIBUTE_CODEC_MASK

    @property
    def attributes(self):
        """The attribute bits as stored."""
        return self.f.attributes

    @property
    def log_append_time(self):
        """Whether every record has the time at which the batch was stored."""
        return (self.f.attributes & ATTRIBUTE_LOG_APPEND_TIME) != 0

    @property
    def transactional(self):
        """Whether the batch belongs to a transaction."""
        return (self.f.attributes & ATTRIBUTE_TRANSACTIONAL) != 0

    @property
    def control(self):
        """Whether the batch holds markers instead of records."""
        return (self.f.attributes & ATTRIBUTE_CONTROL) != 0

    @property
    def crc(self):
        """The stored CRC-32C."""
        return self.f.crc

    @property
    def leader_epoch(self):
        """Partition leader epoch."""
        return self.f.leader_epoch

    @property
    def producer_id(self):
        """Producer id, -1 without one."""
        return self.f.producer_id

    @property
    def producer_epoch(self):
        """Producer epoch, -1 without one."""
        return self.f.producer_epoch

    @property
    def base_sequence(self):
        """Sequence number of the first record, -1 without one."""
        return self.f.base_sequence

    def to_dict(self):
        """Every fact by its name."""
        return {
            "position": self.position, "size_bytes": self.size_bytes, "base_offset": self.base_offset,
            "last_offset": self.last_offset, "count": self.count, "base_timestamp_ms": self.base_timestamp_ms,
            "max_timestamp_ms": self.max_timestamp_ms, "codec": self.codec, "log_append_time": self.log_append_time,
            "transactional": self.transactional, "control": self.control, "crc": self.crc,
            "leader_epoch": self.leader_epoch, "producer_id": self.producer_id,
            "producer_epoch": self.producer_epoch, "base_sequence": self.base_sequence,
        }

    def __eq__(self, other):
        return isinstance(other, BatchFacts) and memcmp(&self.f, &(<BatchFacts>other).f, sizeof(batch_facts)) == 0

    def __repr__(self):
        return f"BatchFacts({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"


cdef class BatchList:
    """A sequence of `BatchFacts`, kept as plain memory and made into objects on access."""
    cdef batch_facts *facts
    cdef Py_ssize_t count, capacity

    def __dealloc__(self):
        free(self.facts)

    cdef int add(self, const batch_facts *one) except -1:
        cdef Py_ssize_t capacity
        cdef void *grown
        if self.count == self.capacity:
            capacity = max(64, self.capacity * 2)
            grown = realloc(self.facts, capacity * sizeof(batch_facts))
            if grown == NULL:
                raise MemoryError()
            self.facts = <batch_facts *>grown
            self.capacity = capacity
        self.facts[self.count] = one[0]
        self.count += 1
        return 0

    def __len__(self):
        return self.count

    def __getitem__(self, Py_ssize_t index):
        if index < 0:
            index += self.count
        if not 0 <= index < self.count:
            raise IndexError(f"batch {index} of {self.count}")
        cdef BatchFacts made = BatchFacts.__new__(BatchFacts)
        made.f = self.facts[index]
        return made

    def __iter__(self):
        cdef Py_ssize_t i
        for i in range(self.count):
            yield self[i]


cdef Region _part(object owner, const char *data, Py_ssize_t size):
    """A read-only view of part of a scanner's map."""
    cdef Region region = Region.__new__(Region)
    region.owner = owner
    region.data = data
    region.size = size
    return region


cdef int read_header(const char *p, int64_t left, batch_facts *out) noexcept nogil:
    """Reads and judges the header at `p`, all but its CRC and its place among the others."""
    cdef int64_t size
    if left < BATCH_HEADER_BYTES:
        return CUT_HEADER
    size = <int64_t><int32_t>load_be32(p + BATCH_LENGTH) + BATCH_LOG_OVERHEAD
    if size < BATCH_HEADER_BYTES or size > MAX_RELATIVE_OFFSET:
        return BAD_SIZE
    if p[BATCH_MAGIC] != MAGIC_V2:
        return BAD_MAGIC
    if size > left:
        return CUT_BATCH
    out.size = <int32_t>size
    out.base_offset = <int64_t>load_be64(p + BATCH_BASE_OFFSET)
    out.leader_epoch = <int32_t>load_be32(p + BATCH_LEADER_EPOCH)
    out.crc = load_be32(p + BATCH_CRC)
    out.attributes = <int16_t>load_be16(p + BATCH_ATTRIBUTES)
    out.last_offset_delta = <int32_t>load_be32(p + BATCH_LAST_OFFSET_DELTA)
    out.base_timestamp = <int64_t>load_be64(p + BATCH_BASE_TIMESTAMP)
    out.max_timestamp = <int64_t>load_be64(p + BATCH_MAX_TIMESTAMP)
    out.producer_id = <int64_t>load_be64(p + BATCH_PRODUCER_ID)
    out.producer_epoch = <int16_t>load_be16(p + BATCH_PRODUCER_EPOCH)
    out.base_sequence = <int32_t>load_be32(p + BATCH_BASE_SEQUENCE)
    out.count = <int32_t>load_be32(p + BATCH_COUNT)
    if out.base_offset < 0 or out.base_offset > <int64_t>9223372032559808511:
        return BAD_OFFSET
    if out.last_offset_delta < 0 or out.count < 0 or out.count > <int64_t>out.last_offset_delta + 1:
        return BAD_HEADER
    if (out.attributes & ATTRIBUTE_CODEC_MASK) > MAX_CODEC:
        return BAD_HEADER
    return FINE


cdef const char *read_headers(const record_fields *r) noexcept nogil:
    """Checks the headers of a record: NULL when they contradict its size."""
    cdef const char *p = r.headers
    cdef int64_t i, length
    for i in range(r.header_count):
        p = varint_read(p, r.end, VARINT_MAX_BYTES, &length)
        if p == NULL or length < 0 or length > r.end - p:
            return NULL
        p = varint_read(p + length, r.end, VARINT_MAX_BYTES, &length)
        if p == NULL or length < -1 or length > r.end - p:
            return NULL
        if length > 0:
            p += length
    return p if p == r.end else NULL


cdef class LogScanner:
    """`LogScanner(path)`: a log file as it is now. `size` is its length in bytes. Raises `OSError`."""
    cdef Mapping map
    cdef readonly int64_t size
    cdef readonly str path

    def __init__(self, str path not None):
        self.path = path
        self.size = Mapping(path, 0).file_size()
        self.map = Mapping(path, self.size)

    cdef int64_t limit(self, int64_t end) noexcept:
        return self.size if end < 0 or end > self.size else end

    cdef uint32_t computed_crc(self, const batch_facts *f) except? 0:
        cdef const char *p = self.map.data + f.position
        return _crc32c(_part(self, p + BATCH_ATTRIBUTES, f.size - BATCH_ATTRIBUTES))

    def scan(self, int64_t position, int64_t end, int64_t base_offset, int64_t expected, bint dense, bint check_crc):
        """Walk batches from `position` to `end` (-1: the file's).

        `expected` is the offset of the next record; with `dense` a batch must begin exactly there, otherwise there or
        later. Returns (BatchList, valid end, None or (message, expected, got)).
        """
        cdef BatchList found = BatchList()
        cdef batch_facts f
        cdef int reason
        cdef uint32_t crc = 0
        end = self.limit(end)
        while position < end:
            reason = read_header(self.map.data + position, end - position, &f)
            f.position = position
            if reason == FINE and (f.base_offset != expected if dense else f.base_offset < expected):
                reason = BAD_OFFSET
            if reason == FINE and f.base_offset + f.last_offset_delta - base_offset > MAX_RELATIVE_OFFSET:
                reason = BAD_OFFSET
            if reason == FINE and check_crc:
                crc = self.computed_crc(&f)
                if crc != f.crc:
                    reason = BAD_CRC
            if reason != FINE:
                return found, position, self._told(reason, position, end, expected, crc)
            found.add(&f)
            position += f.size
            expected = f.base_offset + f.last_offset_delta + 1
        return found, position, None

    cdef object _told(self, int reason, int64_t position, int64_t end, int64_t expected, uint32_t crc):
        cdef const char *p = self.map.data + position
        if reason == CUT_HEADER:
            return "a batch header is cut", f"{BATCH_HEADER_BYTES} bytes", f"{end - position} bytes"
        size = <int64_t><int32_t>load_be32(p + BATCH_LENGTH) + BATCH_LOG_OVERHEAD
        if reason == CUT_BATCH:
            return "a batch is cut", f"{size} bytes", f"{end - position} bytes"
        if reason == BAD_SIZE:
            return "a batch claims an impossible size", f"at least {BATCH_HEADER_BYTES} bytes", f"{size} bytes"
        if reason == BAD_MAGIC:
            return "unknown record batch version", f"version {MAGIC_V2}", f"version {<unsigned char>p[BATCH_MAGIC]}"
        if reason == BAD_OFFSET:
            return "a batch has an impossible base offset", f"offset {expected}", f"offset {<int64_t>load_be64(p)}"
        if reason == BAD_CRC:
            return "CRC-32C does not match", f"0x{load_be32(p + BATCH_CRC):08x}", f"0x{crc:08x}"
        delta = <int32_t>load_be32(p + BATCH_LAST_OFFSET_DELTA)
        return "a batch header contradicts itself", f"0 to {delta + 1} records", f"{<int32_t>load_be32(p + BATCH_COUNT)} records"

    def only_zeros(self, int64_t position, int64_t end):
        """Whether no byte from `position` to `end` (-1: the file's) is set. True when there are none."""
        cdef const char *p = self.map.data
        end = self.limit(end)
        if position >= end:
            return True
        if p[position] != 0:
            return False
        return memcmp(p + position, p + position + 1, end - position - 1) == 0

    def find_batch(self, int64_t position, int64_t end, int64_t least_offset, int64_t limit_offset):
        """Position of the first whole batch at or after `position` with a right CRC and all its offsets from
        `least_offset` and below `limit_offset`; -1 when there is none."""
        cdef batch_facts f
        cdef const char *p
        end = self.limit(end)
        while position + BATCH_HEADER_BYTES <= end:
            # the version byte is the rarest thing to look for
            p = <const char *>memchr(self.map.data + position + BATCH_MAGIC, MAGIC_V2, end - position - BATCH_MAGIC)
            if p == NULL:
                return -1
            position = p - self.map.data - BATCH_MAGIC
            if read_header(self.map.data + position, end - position, &f) == FINE:
                f.position = position
                if f.base_offset >= least_offset and f.base_offset + f.last_offset_delta < limit_offset:
                    if self.computed_crc(&f) == f.crc:
                        return position
            position += 1
        return -1

    def read(self, int64_t position, int64_t size):
        """A copy of the bytes."""
        if position < 0 or size < 0 or position + size > self.size:
            raise IndexError(f"bytes {position} to {position + size} of {self.size}")
        return self.map.data[position:position + size] if size else b""

    def check_records(self, BatchFacts facts not None, decompress, Py_ssize_t limit_bytes):
        """Parse every record of a batch that this scanner found. None, or (message, expected, got).

        `decompress(codec, data, limit_bytes) -> bytes` is used for compressed batches; its errors pass through.
        """
        cdef batch_facts *f = &facts.f
        cdef const char *payload
        cdef Py_buffer view
        cdef Py_ssize_t size = f.size - BATCH_HEADER_BYTES
        if f.position < 0 or f.position + f.size > self.size:
            raise IndexError(f"batch at {f.position} is not in a file of {self.size} bytes")
        payload = self.map.data + f.position + BATCH_HEADER_BYTES
        if not f.attributes & ATTRIBUTE_CODEC_MASK or f.count == 0:
            return check_payload(f, payload, size)
        plain = decompress(f.attributes & ATTRIBUTE_CODEC_MASK, _part(self, payload, size), limit_bytes)
        PyObject_GetBuffer(plain, &view, PyBUF_SIMPLE)
        try:
            return check_payload(f, <const char *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)


cdef object check_payload(batch_facts *f, const char *p, Py_ssize_t size):
    """Walks the plain records of a batch: sizes, count, offsets, largest timestamp."""
    cdef const char *end = p + size
    cdef record_fields r
    cdef int64_t i, previous = -1, newest = 0
    cdef bint dense = f.count == <int64_t>f.last_offset_delta + 1
    for i in range(f.count):
        p = record_read(p, end, &r)
        if p == NULL or read_headers(&r) == NULL:
            return f"record {i} contradicts its size", f"{f.count} whole records", f"{i} whole records"
        if r.offset_delta <= previous or r.offset_delta > f.last_offset_delta or (dense and r.offset_delta != i):
            return f"record {i} has an impossible offset", f.base_offset + previous + 1, f.base_offset + r.offset_delta
        previous = r.offset_delta
        if i == 0 or r.timestamp_delta > newest:
            newest = r.timestamp_delta
    if p != end:
        return "bytes follow the last record", "0 bytes", f"{end - p} bytes"
    if f.count and not f.attributes & ATTRIBUTE_LOG_APPEND_TIME and f.base_timestamp + newest != f.max_timestamp:
        return "the largest timestamp is not that of the header", f.max_timestamp, f.base_timestamp + newest
    return None
