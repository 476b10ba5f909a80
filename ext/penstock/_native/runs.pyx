"""Runs of the event store's index: sorted rows in a mapped file, with a directory by hash and a checksum a block.

Layout of the body: rows, then a directory (for each bucket of leading bits of the hash the first row that is in it or
behind it), then a CRC-32C of each block of rows and directory; see docs/event-store.md. A block is checked when it is
first touched, so that opening reads nothing; what does not match is a `CorruptionError`, and the run is made anew.
Thread and process safety: runs never change; calls hold the GIL but for merging. Crash policy: a run is written whole under
another name first; one that is missing or damaged is made anew from the log.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from penstock._native.mapping cimport Mapping
from penstock._native.postings cimport *

from fastcrc.crc32 import iscsi as _crc32c

from penstock.errors import CorruptionError, InvalidArgumentError

cdef enum:
    ROWS_PER_BUCKET = 16
    BITS_MAX = 32
    SUM_BYTES = 4


def directory_bits(int64_t count):
    """How many leading bits of the hash the directory of a run with so many rows has."""
    cdef int bits = 0
    while bits < BITS_MAX and (<int64_t>ROWS_PER_BUCKET << bits) < count:
        bits += 1
    return bits


def run_file_size(int64_t count, int bits):
    """Bytes of the file of a run."""
    cdef int64_t body = _body_bytes(count, bits)
    return RUN_HEADER_BYTES + body + (body + BLOCK_BYTES - 1) // BLOCK_BYTES * SUM_BYTES


cdef int64_t _body_bytes(int64_t count, int bits) noexcept:
    return count * POSTING_BYTES + ((<int64_t>1 << bits) + 1) * <int64_t>sizeof(uint64_t)


cdef class _Block:
    """A view of a block, for the checksum."""
    cdef const char *data
    cdef Py_ssize_t size

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, <void *>self.data, self.size, 1, flags)

    def __releasebuffer__(self, Py_buffer *view):
        pass


cdef class Run:
    """`Run(path, count, start, end, level)`: an open run. It covers the batches from offset `start` to before `end`."""

    cdef Mapping map
    cdef const posting *rows
    cdef const uint64_t *directory
    cdef const char *body
    cdef int64_t body_bytes
    cdef int bits
    cdef unsigned char *checked
    cdef _Block block
    cdef readonly int64_t count
    cdef readonly int64_t start
    cdef readonly int64_t end
    cdef readonly int level

    def __init__(self, str path not None, int64_t count, int64_t start, int64_t end, int level):
        cdef int bits = directory_bits(count)
        cdef int64_t size
        if not 0 <= count < 1 << 48:
            raise CorruptionError("a run has an impossible number of rows", path, 0, "0 or more", count)
        size = run_file_size(count, bits)
        self.map = Mapping(path, size)
        if self.map.file_size() != size:
            raise CorruptionError("a run has another size than its header says", path, 0, size, self.map.file_size())
        self.body = self.map.data + RUN_HEADER_BYTES
        self.body_bytes = _body_bytes(count, bits)
        self.rows = <const posting *>self.body
        self.directory = <const uint64_t *>(self.body + count * POSTING_BYTES)
        self.bits = bits
        self.block = _Block.__new__(_Block)
        self.checked = <unsigned char *>calloc(self.body_bytes // BLOCK_BYTES // 8 + 1, 1)
        if self.checked == NULL:
            raise MemoryError()
        self.count, self.start, self.end, self.level = count, start, end, level

    def __dealloc__(self):
        free(self.checked)

    @property
    def path(self):
        """The file."""
        return self.map.path

    cdef int _check_block(self, int64_t number) except -1:
        cdef uint32_t stored, computed
        self.block.data = self.body + number * BLOCK_BYTES
        self.block.size = min(BLOCK_BYTES, self.body_bytes - number * BLOCK_BYTES)
        memcpy(&stored, self.body + self.body_bytes + number * SUM_BYTES, SUM_BYTES)
        computed = _crc32c(self.block)
        if stored != computed:
            raise CorruptionError(
                "CRC-32C of a block of the index does not match", self.map.path, RUN_HEADER_BYTES + number * BLOCK_BYTES,
                f"0x{stored:08x}", f"0x{computed:08x}",
            )
        self.checked[number >> 3] |= 1 << (number & 7)
        return 0

    cdef inline int _touch(self, const void *place) except -1:
        cdef int64_t number = (<const char *>place - self.body) // BLOCK_BYTES
        if not self.checked[number >> 3] & (1 << (number & 7)):
            self._check_block(number)
        return 0

    def check(self):
        """Check every block. Raises `CorruptionError`."""
        cdef int64_t number
        for number in range((self.body_bytes + BLOCK_BYTES - 1) // BLOCK_BYTES):
            if not self.checked[number >> 3] & (1 << (number & 7)):
                self._check_block(number)

    cdef int64_t _lower(self, int64_t low, int64_t high, uint64_t h) except -1:
        cdef int64_t middle
        while low < high:
            middle = low + (high - low) // 2
            self._touch(self.rows + middle)
            if self.rows[middle].hash < h:
                low = middle + 1
            else:
                high = middle
        return low

    def find(self, uint64_t h):
        """The rows of a hash: (first, behind the last), or None."""
        cdef int64_t bucket = <int64_t>(h >> (64 - self.bits)) if self.bits else 0
        cdef int64_t low, high, end
        self._touch(self.directory + bucket)
        self._touch(self.directory + bucket + 1)
        low, end = <int64_t>self.directory[bucket], <int64_t>self.directory[bucket + 1]
        low = self._lower(low, end, h)
        if low == end:
            return None
        self._touch(self.rows + low)
        if self.rows[low].hash != h:
            return None
        high = end if h == <uint64_t>-1 else self._lower(low, end, h + 1)
        return low, high

    def row(self, int64_t place):
        """(number, offset) of a row."""
        if not 0 <= place < self.count:
            raise InvalidArgumentError(f"place is {place}; allowed is 0 to {self.count - 1}")
        self._touch(self.rows + place)
        return self.rows[place].number, self.rows[place].position

    def slice(self, int64_t first, int64_t end):
        """(number, offset) of the rows from `first` to before `end`."""
        cdef list found = []
        if not 0 <= first <= end <= self.count:
            raise InvalidArgumentError(f"rows {first} to {end} are asked for; there are {self.count}")
        for place in range(first, end):
            found.append(self.row(place))
        return found


def fill_run(Mapping map not None, list runs not None, bytes rows not None, int64_t count):
    """Write the body of a run of `count` rows: those of `runs` (checked before, in the order of the log), or `rows`."""
    cdef const posting *heads[MERGE_MOST]
    cdef int64_t counts[MERGE_MOST]
    cdef int64_t total = 0, body, number
    cdef int bits = directory_bits(count), n = 0
    cdef posting *out
    cdef char *start
    cdef uint32_t computed
    cdef Run run
    cdef _Block block = _Block.__new__(_Block)
    if len(runs) > MERGE_MOST or not map.writable or map.length < run_file_size(count, bits):
        raise InvalidArgumentError(f"{len(runs)} runs with {count} rows do not fit into {map.length} bytes")
    for item in runs:
        run = item
        heads[n], counts[n] = run.rows, run.count
        total += run.count
        n += 1
    if not runs:
        heads[0], counts[0] = <const posting *>PyBytes_AS_STRING(rows), PyBytes_GET_SIZE(rows) // POSTING_BYTES
        total, n = counts[0], 1
    if total != count:
        raise InvalidArgumentError(f"count is {count}; there are {total} rows")
    start = map.data + RUN_HEADER_BYTES
    out = <posting *>start
    body = _body_bytes(count, bits)
    with nogil:
        postings_merge(heads, counts, n, out)
        postings_directory(out, count, bits, <uint64_t *>(out + count))
    for number in range((body + BLOCK_BYTES - 1) // BLOCK_BYTES):
        block.data = start + number * BLOCK_BYTES
        block.size = min(BLOCK_BYTES, body - number * BLOCK_BYTES)
        computed = _crc32c(block)
        memcpy(start + body + number * SUM_BYTES, &computed, SUM_BYTES)
