"""Single records of a partition, by their offsets.

A batch is found through the index, checked and (where compressed) unpacked once, and kept open for what follows: the last
few of them, with a mark at every 16th record, so that reading here and there in one batch does not walk it anew.
Invariant: what is open belongs to the list of segments that is published; compaction and retention make it begin anew. Crash
policy: nothing is written. Thread safety: calls hold the GIL throughout; a batch is only walked between two of its records.
"""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBuffer_Release, PyObject_GetBuffer
from cpython.list cimport PyList_CheckExact, PyList_GET_SIZE
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc

from penstock._native.control cimport PENSTOCK_FLAG_DELETED, control_slot, control_snapshot
from penstock._native.format cimport VARINT_MAX_BYTES, varint_read
from penstock._native.log_region cimport LogRegion
from penstock._native.partition cimport Partition
from penstock._native.records cimport Record, RecordCursor, Source

from penstock.errors import InvalidTypeError, OffsetOutOfRangeError, UnknownTopicError

cdef enum:
    BATCHES_MAX = 32
    HELD_BYTES_MAX = 8 << 20  # of unpacked batches
    MARK_EVERY = 16


cdef class OpenBatch:
    """A checked batch, and how far its records are known."""

    def __dealloc__(self):
        free(self.marks)

    cdef bint seek(self, int64_t offset) noexcept:
        """Put the cursor at (or, where records are missing in between, before) the record; False when sizes contradict."""
        cdef RecordCursor cursor = self.cursor
        cdef const char *payload = cursor.walker.payload
        cdef const char *end = cursor.walker.payload_end
        cdef const char *p = cursor.next_byte
        cdef int64_t wanted = offset - self.base, index = self.index, size, mark
        if not self.dense:
            if index == 0 or offset < cursor.next_offset:
                p, index = payload, 0
        else:
            if self.marks == NULL and self.count > MARK_EVERY:
                self.marks = <uint32_t *>malloc((self.count // MARK_EVERY + 1) * sizeof(uint32_t))
            if index > wanted:
                p, index = payload, 0
            mark = min(wanted // MARK_EVERY, self.marked)  # the first record needs none
            if self.marks != NULL and mark > 0 and mark * MARK_EVERY > index:
                p, index = payload + self.marks[mark - 1], mark * MARK_EVERY
            while index < wanted:
                p = varint_read(p, end, VARINT_MAX_BYTES, &size)
                if p == NULL or size < 1 or size > end - p:
                    return False
                p += size
                index += 1
                if self.marks != NULL and index == (self.marked + 1) * MARK_EVERY:
                    self.marks[self.marked] = <uint32_t>(p - payload)
                    self.marked += 1
        cursor.next_byte = p
        cursor.left = self.count - index
        cursor.from_offset = offset
        self.index = index
        return True


cdef class Lookup:
    """`Lookup(topic, number, log, decompressed_limit_bytes)`: reads single records of that partition."""

    def __init__(self, Source source not None, Partition log not None, Py_ssize_t decompressed_limit_bytes):
        self.source = source
        self.log = log
        self._batches = []
        self._limit_bytes = decompressed_limit_bytes
        self._generation = -1

    cpdef list read(self, offsets):
        """The records at `offsets` (a list of ints, or an int64 array), in that order; ascending is fastest.

        Raises `OffsetOutOfRangeError` (one of them is not in the log, or holds no record any more), `InvalidTypeError`,
        `CorruptionError`, `UnknownTopicError`.
        """
        cdef Py_buffer view
        cdef Py_ssize_t i
        cdef list out = [], given
        cdef control_slot slot
        if self.log.control.flags & PENSTOCK_FLAG_DELETED:
            raise UnknownTopicError(f"topic {self.log.topic!r} was deleted")
        control_snapshot(self.log.control, &slot)
        if slot.generation != self._generation:
            self._batches.clear()
            self._held_bytes = 0
            self._generation = slot.generation
        if not isinstance(offsets, (list, tuple, range)) and _is_int64(offsets):
            PyObject_GetBuffer(offsets, &view, PyBUF_ND | PyBUF_FORMAT)
            try:
                for i in range(view.len // 8):
                    out.append(self._checked((<int64_t *>view.buf)[i], &slot))
            finally:
                PyBuffer_Release(&view)
            return out
        given = offsets if PyList_CheckExact(offsets) else _as_list(offsets)
        for i in range(PyList_GET_SIZE(given)):
            out.append(self._checked(_as_offset(given[i], i), &slot))
        return out

    cdef Record _checked(self, int64_t offset, control_slot *slot):
        cdef Record record
        if offset < slot.log_start_offset or offset >= slot.log_end_offset:
            raise OffsetOutOfRangeError(
                f"offset {offset} of {self.log.topic}-{self.log.number} is not in the log: "
                f"allowed is {slot.log_start_offset} to {slot.log_end_offset - 1}"
            )
        record = self.record(offset)
        if record is None:
            raise OffsetOutOfRangeError(
                f"offset {offset} of {self.log.topic}-{self.log.number} holds no record: "
                "compaction removed it, or it is the marker of a transaction"
            )
        return record

    cdef Record record(self, int64_t offset):
        """The record at an offset of the log, or None where there is none (any more)."""
        cdef OpenBatch batch = self._find(offset)
        cdef RecordCursor cursor
        cdef Record record
        if batch is None:
            batch = self._open(offset)
        if batch is None or batch.count == 0:
            return None
        cursor = batch.cursor
        if not batch.seek(offset):
            raise cursor._broken(offset - batch.base)
        batch.busy = True  # another thread may come in while headers are made
        try:
            record = <Record>cursor.next_record()
            batch.index = batch.count - cursor.left
        finally:
            batch.busy = False
        return record if record is not None and record.offset == offset else None

    cdef OpenBatch _find(self, int64_t offset):
        cdef Py_ssize_t i = PyList_GET_SIZE(self._batches) - 1
        cdef OpenBatch batch
        while i >= 0:
            batch = <OpenBatch>self._batches[i]
            if batch.base <= offset <= batch.last and not batch.busy:
                if PyList_GET_SIZE(self._batches) - i > BATCHES_MAX // 2:
                    self._batches.append(self._batches.pop(i))
                return batch
            i -= 1
        return None

    cdef OpenBatch _open(self, int64_t offset):
        cdef LogRegion region = self.log.fetch(offset, 1)
        cdef RecordCursor cursor
        cdef OpenBatch batch, oldest
        if region is None:
            return None
        cursor = RecordCursor.__new__(RecordCursor)
        cursor.source = self.source
        cursor.decompressed_limit_bytes = self._limit_bytes
        cursor.feed(region, offset)
        if not cursor._open_batch() or cursor.walker.base_offset > offset:
            return None
        batch = OpenBatch.__new__(OpenBatch)
        batch.cursor = cursor
        batch.base = cursor.walker.base_offset
        batch.last = batch.base + cursor.walker.last_offset_delta
        batch.count = cursor.walker.count
        batch.dense = batch.count == cursor.walker.last_offset_delta + 1
        if cursor.walker.payload_owner is not None:
            batch.held_bytes = cursor.walker.payload_end - cursor.walker.payload
        self._held_bytes += batch.held_bytes
        while PyList_GET_SIZE(self._batches) and (
            PyList_GET_SIZE(self._batches) >= BATCHES_MAX or self._held_bytes > HELD_BYTES_MAX
        ):
            oldest = self._batches.pop(0)
            self._held_bytes -= oldest.held_bytes
        self._batches.append(batch)
        return batch


cdef bint _is_int64(offsets) except -1:
    cdef Py_buffer view
    cdef bint found
    try:
        PyObject_GetBuffer(offsets, &view, PyBUF_ND | PyBUF_FORMAT)
    except (TypeError, BufferError, ValueError):
        return False
    found = view.ndim == 1 and view.itemsize == 8 and view.format != NULL and view.format in (b"l", b"q")
    PyBuffer_Release(&view)
    return found


cdef list _as_list(offsets):
    if isinstance(offsets, (str, bytes)):
        raise InvalidTypeError(f"offsets is {type(offsets).__name__}; a list of ints, or an int64 array, is needed")
    try:
        return list(offsets)
    except TypeError:
        raise InvalidTypeError(f"offsets is {type(offsets).__name__}; a list of ints, or an int64 array, is needed") from None


cdef int64_t _as_offset(offset, Py_ssize_t place) except? -2:
    try:
        if type(offset) is int:
            return offset
        if isinstance(offset, bool):
            raise TypeError
        return offset.__index__()
    except (TypeError, AttributeError):
        raise InvalidTypeError(f"offsets[{place}] is {type(offset).__name__}; an int is needed") from None
    except OverflowError:
        raise OffsetOutOfRangeError(f"offsets[{place}] is {offset}; no log has it") from None
