"""Columns of batches for array programs: where values lie, in one pass without the GIL; the rest when it is asked for.

Thread safety: one thread at a time per batch.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from penstock._native.format cimport *
from penstock._native.records cimport BatchWalker
from penstock._native.region cimport Region

import numpy as np

from penstock.errors import CorruptionError


cdef struct batch_view:
    const char *payload
    const char *end
    int64_t count
    int64_t base_offset
    int64_t last_offset_delta
    int64_t base_timestamp
    int64_t timestamp_mask  # 0 where every record has the batch's time (LogAppendTime)


cdef enum column_pair:
    VALUE_PLACES
    KEY_PLACES
    OFFSETS_AND_TIMESTAMPS


cdef class ColumnPart:
    """Records that share one value buffer: consecutive uncompressed batches, or one compressed batch.

    `buffer`: what `value_starts` and `key_starts` index into. All columns are read-only numpy int64 arrays of `count`.
    Invariant: every record was parsed once, for the values, before any other column is made.
    """

    cdef readonly object buffer
    cdef readonly Py_ssize_t count
    cdef readonly int64_t base_offset
    cdef readonly int64_t last_offset
    cdef readonly object value_starts
    cdef readonly object value_lengths
    cdef object keys
    cdef object places
    cdef const char *origin
    cdef int64_t from_offset
    cdef batch_view *batches
    cdef Py_ssize_t batch_count

    def __dealloc__(self):
        free(self.batches)

    @property
    def offsets(self):
        """Offset of each record."""
        return self._places()[0]

    @property
    def timestamps(self):
        """Timestamp of each record in milliseconds."""
        return self._places()[1]

    @property
    def key_starts(self):
        """Where each key begins in `buffer`."""
        return self._keys()[0]

    @property
    def key_lengths(self):
        """Bytes of each key, -1 for null."""
        return self._keys()[1]

    cdef object _places(self):
        if self.places is None:
            self.places = self._columns(OFFSETS_AND_TIMESTAMPS)
        return self.places

    cdef object _keys(self):
        if self.keys is None:
            self.keys = self._columns(KEY_PLACES)
        return self.keys

    cdef object _columns(self, column_pair wanted):
        array = np.empty((2, self.count), np.int64)
        cdef int64_t[:, ::1] columns = array
        cdef int64_t *first = &columns[0, 0]
        cdef int64_t *second = &columns[1, 0]
        cdef Py_ssize_t i, at = 0
        with nogil:
            for i in range(self.batch_count):
                at += _fill(&self.batches[i], wanted, self.origin, self.from_offset, first + at, second + at)
        array.setflags(write=False)
        return array

    cdef int _add(self, BatchWalker walker) except -1:
        """Remember the walker's batch; its records come into `columns` behind those that are there."""
        cdef batch_view *grown
        cdef batch_view *view
        if self.batch_count & (self.batch_count - 1) == 0:  # the room doubles at powers of two
            grown = <batch_view *>realloc(self.batches, max(self.batch_count * 2, 1) * sizeof(batch_view))
            if grown == NULL:
                raise MemoryError()
            self.batches = grown
        view = &self.batches[self.batch_count]
        view.payload, view.end, view.count = walker.payload, walker.payload_end, walker.count
        view.base_offset, view.last_offset_delta = walker.base_offset, walker.last_offset_delta
        view.base_timestamp = walker.max_timestamp if walker.log_append_time else walker.base_timestamp
        view.timestamp_mask = 0 if walker.log_append_time else -1
        self.batch_count += 1
        return 0

    cdef ColumnPart _finish(self, object array):
        array.setflags(write=False)  # the columns are trusted as indices into the buffer
        self.value_starts = array[0, :self.count]
        self.value_lengths = array[1, :self.count]
        return self


cdef int64_t _fill(
    const batch_view *batch, column_pair wanted, const char *origin, int64_t from_offset, int64_t *first, int64_t *second,
) noexcept nogil:
    """Parse one batch into two columns. The number of records kept, or -1 when a record contradicts itself."""
    # plain locals: the compiler would read the struct again after every store into a column
    cdef record_shape shape
    cdef const char *p = batch.payload
    cdef const char *end = batch.end
    cdef int64_t left = batch.count
    cdef int64_t last_offset_delta = batch.last_offset_delta
    cdef int64_t least_delta = from_offset - batch.base_offset
    cdef Py_ssize_t kept = 0
    memset(&shape, 0, sizeof(shape))
    while left > 0:
        p = record_follow(p, end, &shape)
        if p == NULL or shape.r.offset_delta < 0 or shape.r.offset_delta > last_offset_delta:
            return -1
        left -= 1
        if shape.r.offset_delta < least_delta:
            continue
        if wanted == VALUE_PLACES:
            first[kept] = shape.r.value - origin
            second[kept] = shape.r.value_length
        elif wanted == KEY_PLACES:
            first[kept] = shape.r.key - origin
            second[kept] = shape.r.key_length
        else:
            first[kept] = batch.base_offset + shape.r.offset_delta
            second[kept] = batch.base_timestamp + (shape.r.timestamp_delta & batch.timestamp_mask)
        kept += 1
    return kept if p == end else -1


cdef int64_t _first_offset(const batch_view *batch, int64_t from_offset) noexcept nogil:
    """Offset of the first record that is kept, of a batch that keeps some."""
    cdef record_fields fields
    cdef const char *p = batch.payload
    fields.offset_delta = 0
    while p != NULL and p < batch.end:
        p = record_read(p, batch.end, &fields)
        if batch.base_offset + fields.offset_delta >= from_offset:
            break
    return batch.base_offset + fields.offset_delta


cdef int64_t _last_offset(const batch_view *batch) noexcept nogil:
    """Offset of the last record: compaction may have taken those after it."""
    cdef record_fields fields
    cdef const char *p = batch.payload
    cdef int64_t left = batch.count
    if batch.count == batch.last_offset_delta + 1:
        return batch.base_offset + batch.last_offset_delta
    fields.offset_delta = 0
    while left > 0 and p != NULL:
        p = record_read(p, batch.end, &fields)
        left -= 1
    return batch.base_offset + fields.offset_delta


def _count(Region region not None):
    """Upper bound of the records in a region, from its headers alone."""
    cdef const char *p = region.data
    cdef const char *end = region.data + region.size
    cdef int64_t total = 0, size
    while end - p >= BATCH_HEADER_BYTES:
        total += load_be32(p + BATCH_COUNT)
        size = <int64_t>load_be32(p + BATCH_LENGTH) + BATCH_LOG_OVERHEAD
        if size < BATCH_HEADER_BYTES or size > end - p:
            break
        p += size
    return min(total, region.size)


def column_parts(Region region not None, int64_t from_offset, Py_ssize_t limit_bytes, aborted=None):
    """The parts of a region, in order, without control batches, `aborted` ones and records below `from_offset`."""
    cdef BatchWalker walker = BatchWalker(region, limit_bytes)
    walker.aborted = aborted
    cdef Py_ssize_t capacity = 0
    cdef int64_t kept
    cdef int64_t[:, ::1] columns
    cdef ColumnPart part = None
    cdef batch_view *batch
    cdef list parts = []
    cdef object array = None
    while walker.advance():
        if walker.hidden or walker.count == 0 or walker.base_offset + walker.last_offset_delta < from_offset:
            continue
        if part is None or walker.codec or part.buffer is not region or part.count + walker.count > capacity:
            if part is not None and part.count:
                parts.append(part._finish(array))
            part = ColumnPart.__new__(ColumnPart)
            part.from_offset = from_offset
            part.buffer = walker.payload_owner if walker.codec else region
            part.origin = walker.payload if walker.codec else region.data
            capacity = walker.count if walker.codec else max(<Py_ssize_t>_count(region), walker.count)
            array = np.empty((2, capacity), np.int64)
            columns = array
        part._add(walker)
        batch = &part.batches[part.batch_count - 1]
        with nogil:
            kept = _fill(batch, VALUE_PLACES, part.origin, from_offset, &columns[0, part.count], &columns[1, part.count])
        if kept < 0:
            raise CorruptionError(
                "a record of the batch contradicts its size", region.path,
                region.position + (walker.batch - region.data), f"{walker.count} whole records", "other bytes",
            )
        if kept:
            if part.count == 0:
                part.base_offset = _first_offset(batch, from_offset)
            part.last_offset = _last_offset(batch)
            part.count += kept
    if part is not None and part.count:
        parts.append(part._finish(array))
    return parts


def slices(const unsigned char[::1] buffer, const int64_t[::1] starts, const int64_t[::1] lengths):
    """A list of bytes: `buffer[start:start + length]` for each pair, None where the length is negative.

    `IndexError` when a pair is outside of the buffer.
    """
    cdef Py_ssize_t count = min(starts.shape[0], lengths.shape[0]), i
    cdef Py_ssize_t size = buffer.shape[0]
    cdef list out = PyList_New(count)
    cdef const char *base = <const char *>&buffer[0] if buffer.shape[0] else NULL
    cdef object item
    for i in range(count):
        if lengths[i] < 0:
            item = None
        else:
            if starts[i] < 0 or starts[i] > size or lengths[i] > size - starts[i]:
                raise IndexError(f"{lengths[i]} bytes at {starts[i]} are not in a buffer of {size} bytes")
            item = PyBytes_FromStringAndSize(base + starts[i], lengths[i])
        Py_INCREF(item)
        PyList_SET_ITEM(out, i, item)
    return out


def gather(const unsigned char[::1] buffer, const int64_t[::1] starts, const int64_t[::1] lengths):
    """(contiguous bytes, int64 offsets of n + 1): the values laid end to end, as Arrow wants them."""
    cdef Py_ssize_t count = starts.shape[0], i
    cdef int64_t total = 0
    bounds = np.empty(count + 1, np.int64)
    cdef int64_t[::1] ends = bounds
    ends[0] = 0
    for i in range(count):
        if lengths[i] > 0:
            total += lengths[i]
        ends[i + 1] = total
    packed = np.empty(total, np.uint8)
    cdef unsigned char[::1] out = packed
    with nogil:
        for i in range(count):
            if lengths[i] > 0:
                memcpy(&out[ends[i]], &buffer[starts[i]], lengths[i])
    return packed, bounds
