"""Columns of batches for array programs: offsets, timestamps, and where keys and values lie, in one pass without the GIL."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy

from penstock._native.format cimport *
from penstock._native.records cimport BatchWalker
from penstock._native.region cimport Region

import numpy as np

from penstock.errors import CorruptionError


cdef class ColumnPart:
    """Records that share one value buffer: consecutive uncompressed batches, or one compressed batch.

    `buffer`: what `value_starts` and `key_starts` index into. The five columns are numpy int64 arrays of one length.
    """

    cdef readonly object buffer
    cdef readonly object offsets
    cdef readonly object timestamps
    cdef readonly object value_starts
    cdef readonly object value_lengths
    cdef readonly object key_starts
    cdef readonly object key_lengths


cdef int _fill(
    const char *p, const char *end, const char *origin, BatchWalker walker, int64_t[:, ::1] columns, Py_ssize_t at, int64_t from_offset,
) noexcept nogil:
    """Parse one batch into columns from `at` on. The number of records kept, or -1 when a record contradicts itself."""
    # plain locals and pointers: the compiler would read the walker again after every store into a column
    cdef record_fields fields
    cdef int64_t left = walker.count
    cdef int64_t base_offset = walker.base_offset
    cdef int64_t last_offset_delta = walker.last_offset_delta
    cdef int64_t base_timestamp = walker.max_timestamp if walker.log_append_time else walker.base_timestamp
    cdef int64_t timestamp_mask = 0 if walker.log_append_time else -1
    cdef int64_t *offsets = &columns[0, at]
    cdef int64_t *timestamps = &columns[1, at]
    cdef int64_t *value_starts = &columns[2, at]
    cdef int64_t *value_lengths = &columns[3, at]
    cdef int64_t *key_starts = &columns[4, at]
    cdef int64_t *key_lengths = &columns[5, at]
    cdef Py_ssize_t kept = 0
    cdef int64_t offset
    while left > 0:
        p = record_read(p, end, &fields)
        if p == NULL or fields.offset_delta < 0 or fields.offset_delta > last_offset_delta:
            return -1
        left -= 1
        offset = base_offset + fields.offset_delta
        if offset < from_offset:
            continue
        offsets[kept] = offset
        timestamps[kept] = base_timestamp + (fields.timestamp_delta & timestamp_mask)
        value_starts[kept] = fields.value - origin
        value_lengths[kept] = fields.value_length
        key_starts[kept] = fields.key - origin
        key_lengths[kept] = fields.key_length
        kept += 1
    return <int>kept if p == end else -1


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


def column_parts(Region region not None, int64_t from_offset, Py_ssize_t limit_bytes):
    """The parts of a region, in order, without control batches and records below `from_offset`."""
    cdef BatchWalker walker = BatchWalker(region, limit_bytes)
    cdef Py_ssize_t used = 0, capacity = 0
    cdef int kept
    cdef int64_t[:, ::1] columns
    cdef list parts = []
    cdef object array = None
    cdef const char *payload
    cdef const char *payload_end
    while walker.advance():
        if walker.control or walker.base_offset + walker.last_offset_delta < from_offset:
            continue
        if walker.codec:
            if used:
                parts.append(_part(region, array, used))
                used, array = 0, None
            own = np.empty((6, walker.count), np.int64)
            columns = own
        else:
            if array is None or used + walker.count > capacity:
                if used:
                    parts.append(_part(region, array, used))
                capacity = max(<Py_ssize_t>_count(region), walker.count)
                array, used = np.empty((6, capacity), np.int64), 0
            columns = array
        payload, payload_end = walker.payload, walker.payload_end
        if walker.codec:
            with nogil:
                kept = _fill(payload, payload_end, payload, walker, columns, 0, from_offset)
        else:
            with nogil:
                kept = _fill(payload, payload_end, region.data, walker, columns, used, from_offset)
        if kept < 0:
            raise CorruptionError(
                "a record of the batch contradicts its size", region.path,
                region.position + (walker.batch - region.data), f"{walker.count} whole records", "other bytes",
            )
        if walker.codec:
            if kept:
                parts.append(_part(walker.payload_owner, own, kept))
        else:
            used += kept
    if used:
        parts.append(_part(region, array, used))
    return parts


cdef ColumnPart _part(object buffer, object array, Py_ssize_t used):
    cdef ColumnPart part = ColumnPart.__new__(ColumnPart)
    array.setflags(write=False)  # the columns are trusted as indices into the buffer
    part.buffer = buffer
    part.offsets = array[0, :used]
    part.timestamps = array[1, :used]
    part.value_starts = array[2, :used]
    part.value_lengths = array[3, :used]
    part.key_starts = array[4, :used]
    part.key_lengths = array[5, :used]
    return part


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
