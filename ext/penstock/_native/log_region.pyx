"""Whole stored batches of one segment, read where they lie, and where the next ones are.

Invariants: a region begins and ends with a batch, each of which begins at the offset the one before it ended with; the
checksums are left to who decodes (`records`). Nothing beyond the published end is touched.

Thread and process safety: read only; any number of threads. Crash policy: nothing is written. A header that contradicts what
surrounds it is `CorruptionError`, raised by the fetch that begins with it, so that what lies before it can still be read.
"""

from libc.stdint cimport int32_t, int64_t

from penstock._native.format cimport (
    BATCH_HEADER_BYTES,
    BATCH_LAST_OFFSET_DELTA,
    BATCH_LENGTH,
    BATCH_LOG_OVERHEAD,
    BATCH_MAX_TIMESTAMP,
    load_be32,
    load_be64,
)
from penstock._native.metrics cimport ERROR_CORRUPTION, metrics_error, metrics_partition
from penstock._native.read_segment cimport ReadSegment
from penstock._native.region cimport Region

from penstock.errors import CorruptionError


cdef class LogRegion(Region):
    """Whole stored batches, and where the next ones are."""

    def first_batch_at(self, int64_t timestamp_ms):
        """The first batch that holds a timestamp >= `timestamp_ms`, as a region of its own; or None."""
        cdef const char *data = self.data
        cdef const char *end = self.data + self.size
        cdef int64_t size
        cdef LogRegion found
        while data < end:
            size = <int64_t><int32_t>load_be32(data + BATCH_LENGTH) + BATCH_LOG_OVERHEAD
            if <int64_t>load_be64(data + BATCH_MAX_TIMESTAMP) >= timestamp_ms:
                found = LogRegion.__new__(LogRegion)
                found.data = data
                found.size = size
                found.path = self.path
                found.position = self.position + (data - self.data)
                found.owner = self.owner
                found.segment = self.segment
                found.next_offset = <int64_t>load_be64(data) + <int32_t>load_be32(data + BATCH_LAST_OFFSET_DELTA) + 1
                found.next_position = found.position + size
                return found
            data += size
        return None


cdef bint _plausible(const char *data, int64_t position, int64_t limit, int64_t expected) noexcept:
    """Whether a batch header lies here whose size fits, and which begins at the `expected` offset (-1: at any)."""
    cdef int64_t size, base
    if position + BATCH_HEADER_BYTES > limit:
        return False
    size = <int64_t><int32_t>load_be32(data + position + BATCH_LENGTH) + BATCH_LOG_OVERHEAD
    base = <int64_t>load_be64(data + position)
    if size < BATCH_HEADER_BYTES or position + size > limit or <int32_t>load_be32(data + position + BATCH_LAST_OFFSET_DELTA) < 0:
        return False
    return base == expected or (expected < 0 and 0 <= base < 1 << 62)


cdef object _implausible(ReadSegment segment, int64_t position, int64_t limit, int64_t expected, metrics_partition *metrics):
    cdef const char *data = segment.log.data + position
    metrics_error(metrics, ERROR_CORRUPTION)
    if position + BATCH_HEADER_BYTES > limit:
        return CorruptionError("a batch header is cut", segment.log.path, position, f"{BATCH_HEADER_BYTES} bytes", limit - position)
    return CorruptionError(
        "a batch header contradicts what surrounds it", segment.log.path, position,
        f"offset {'of the log' if expected < 0 else expected} and at most {limit - position} bytes",
        f"offset {<int64_t>load_be64(data)} and {<int64_t><int32_t>load_be32(data + BATCH_LENGTH) + BATCH_LOG_OVERHEAD} bytes",
    )


cdef LogRegion region_from(
    ReadSegment segment, int64_t position, int64_t limit, int64_t offset, Py_ssize_t max_bytes, int64_t end_offset, bint entered,
    metrics_partition *metrics,
):
    """The batches from the one that holds `offset` on, up to `max_bytes` (at least one), searched from `position` to `limit`.

    `entered`: the batch at `position` begins with `offset`. None of them begins at `end_offset` or later. `metrics` (or NULL)
    counts a header that cannot be one. Raises `CorruptionError`.
    """
    cdef LogRegion region
    cdef const char *data = segment.log.data
    cdef int64_t start = -1
    cdef int64_t size, next_offset = offset
    cdef int64_t expected = offset if entered else (segment.base_offset if position == 0 else -1)
    if segment.log.file_size() < limit:
        raise CorruptionError("the file was cut", segment.log.path, segment.log.file_size(), f"{limit} bytes", segment.log.file_size())
    while position < limit and next_offset < end_offset:
        if start >= 0 and (position - start >= max_bytes or not _plausible(data, position, limit, next_offset)):
            break  # a bad batch is reported by the fetch that begins with it
        if not _plausible(data, position, limit, expected):
            raise _implausible(segment, position, limit, expected, metrics)
        size = <int64_t><int32_t>load_be32(data + position + BATCH_LENGTH) + BATCH_LOG_OVERHEAD
        if start >= 0 and position + size - start > max_bytes:
            break
        expected = <int64_t>load_be64(data + position) + <int32_t>load_be32(data + position + BATCH_LAST_OFFSET_DELTA) + 1
        if start < 0 and expected > offset:
            start = position
        if start >= 0:
            next_offset = expected
        position += size
    if start < 0:
        raise CorruptionError("no batch holds an offset of the log", segment.log.path, position, offset, "end of segment")
    region = LogRegion.__new__(LogRegion)
    region.data = data + start
    region.size = position - start
    region.path = segment.log.path
    region.position = start
    region.owner = segment
    region.segment = segment
    region.next_offset = next_offset
    region.next_position = position
    return region
