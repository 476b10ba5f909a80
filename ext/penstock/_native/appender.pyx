"""Storing one record, or one batch, at a time, and reading single records: the native half of `Topic`.

Thread and process safety: any; the builder that a call encodes into is its own until the record is stored. Crash policy: what
returned is stored (see `control.h`); a call that raised stored nothing, but for a failed sync, which says so.
"""

from cpython.buffer cimport PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint32_t
from libc.stdlib cimport free, malloc

from penstock._native.builder cimport BatchBuilder
from penstock._native.lookup cimport Lookup
from penstock._native.format cimport RECORD_OVERHEAD_MAX
from penstock._native.lane cimport Lane, TopicLanes, checked_timestamp, key_missing, open_view, system_time_ms, too_large
from penstock._native.bell cimport Bell
from penstock._native.records cimport make_metadata

from penstock._native.builder import encode_headers
from penstock._native.records import DECOMPRESSED_LIMIT_BYTES
from penstock.clock import SystemClock
from penstock.errors import InvalidArgumentError, InvalidTypeError, RecordTooLargeError

cdef enum:
    STICKY_BYTES = 16384
    COMPRESS_FROM_BYTES = 1024


cdef class Appender:
    """`_load_lanes()`, in the subclass, returns the topic's `TopicLanes`."""

    def __init__(self, broker, Bell catalog_bell not None, str name not None):
        self._broker = broker
        self._clock = broker.clock
        self._system_clock = type(broker.clock) is SystemClock
        self._catalog_bell = catalog_bell
        self.name = name
        self._reload()

    cdef int _reload(self) except -1:
        cdef uint32_t generation = self._catalog_bell.words.value
        self._lanes = self._load_lanes()
        self._lookups = {}
        self._generation = generation
        return 0

    cdef int64_t _now(self) except -1:
        return system_time_ms() if self._system_clock else self._clock.time_ms()

    def append(self, value, key=None, headers=None, timestamp_ms=None, partition=None, expected_offset=None):
        """Store one record; it is stored when this returns, as `RecordMetadata`.

        `expected_offset`: store it only as this offset, the end of the partition as it was last seen (checked under the
        writer's lock), else `ConcurrencyError`; the partition is then to be given, by `partition` or `key`.
        Other arguments and errors as in `Producer.send`; `DiskFullError` means that nothing was stored.
        """
        cdef Py_buffer value_view, key_view
        cdef bint value_held = False, key_held = False
        cdef const char *value_data = NULL
        cdef const char *key_data = NULL
        cdef Py_ssize_t value_length = -1, key_length = -1, size = 0
        cdef bytes encoded = None
        cdef int32_t header_count = 0, number
        cdef int64_t timestamp
        cdef object made
        cdef TopicLanes lanes
        cdef Lane lane
        cdef BatchBuilder builder
        cdef int rc
        if self._generation != self._catalog_bell.words.value or self._catalog_bell.closed:
            self._reload()
        lanes = self._lanes
        try:
            if type(value) is bytes:
                value_data, value_length = PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)
                size = value_length
            elif value is not None:
                value_held = open_view(value, &value_view, "value")
                value_data, value_length = <const char *>value_view.buf, value_view.len
                size = value_length
            if key is not None:
                key_held = open_view(key, &key_view, "key")
                key_data, key_length = <const char *>key_view.buf, key_view.len
                size += key_length
            if headers:
                encoded, header_count = encode_headers(headers)
                size += PyBytes_GET_SIZE(encoded)
            if size > lanes.max_message_bytes:
                too_large(size, lanes)
            if lanes.keyed and key_length < 0:
                key_missing(lanes.name)
            if expected_offset is not None and partition is None and key_length < 0 and lanes.partitions > 1:
                raise InvalidArgumentError(f"expected_offset needs a partition or a key: topic {lanes.name!r} has {lanes.partitions} partitions")
            timestamp = self._now() if timestamp_ms is None else checked_timestamp(timestamp_ms)
            number = lanes.choose(partition, key_data, key_length)
            lane = <Lane>lanes.lanes[number]
            builder, self._spare = self._spare, None
            if builder is None:
                builder = BatchBuilder(4096)
            rc = builder.append_raw(
                value_data, value_length, key_data, key_length,
                NULL if encoded is None else PyBytes_AS_STRING(encoded), 0 if encoded is None else PyBytes_GET_SIZE(encoded),
                header_count, timestamp,
            )
            if rc:
                raise MemoryError()
            made = self._store(lane, builder, size, expected_offset)
        finally:
            if value_held:
                PyBuffer_Release(&value_view)
            if key_held:
                PyBuffer_Release(&key_view)
        if key_length < 0 and partition is None:
            self._sticky_bytes += size
            if self._sticky_bytes > STICKY_BYTES:
                self._sticky_bytes = 0
                lanes.switch()
        return made

    cdef object _store(self, Lane lane, BatchBuilder builder, Py_ssize_t size, expected_offset):
        """Store what was encoded, as one batch; the builder is this handle's again."""
        made = self._store_sealed(lane, builder, size, expected_offset)
        builder.reset_fast()
        if builder.capacity <= 1 << 20:
            self._spare = builder
        return made

    cdef object _store_sealed(self, Lane lane, BatchBuilder builder, Py_ssize_t size, expected_offset):
        cdef TopicLanes lanes = self._lanes
        cdef int64_t expected = -1 if expected_offset is None else _checked_offset(expected_offset)
        cdef int64_t timestamp = builder.base_timestamp_ms, offset
        builder.seal(lanes.codec if size >= COMPRESS_FROM_BYTES else 0)
        if lanes.log_append_time:
            timestamp = self._now()
            builder.set_log_append_time(timestamp)
        offset = lane.log.append_raw(builder.sealed, builder.sealed_size, expected)
        lane.saved(builder)
        return make_metadata(lane.source, offset, timestamp)

    def append_batch(self, values, keys=None, headers=None, timestamp_ms=None, partition=0, expected_offset=None):
        """Store these values in one batch: all of them or none, one behind the other; `RecordMetadata` of the first.

        `values`: a list of bytes or None. `keys`, `headers`: lists that run beside it. `timestamp_ms`: of all of them
        (default: now). `partition` (default 0) and `expected_offset` as in `append`.
        Raises `RecordTooLargeError` when all together pass `max_message_bytes`, `InvalidArgumentError` (no value, lists of
        different lengths), `ConcurrencyError`, and what `append` raises.
        """
        cdef TopicLanes lanes
        cdef BatchBuilder builder
        cdef list given
        cdef int64_t timestamp
        cdef Py_ssize_t size
        if self._generation != self._catalog_bell.words.value or self._catalog_bell.closed:
            self._reload()
        lanes = self._lanes
        given = _listed(values, "values", -1)
        if lanes.keyed and (keys is None or None in keys):
            key_missing(lanes.name)
        timestamp = self._now() if timestamp_ms is None else checked_timestamp(timestamp_ms)
        lane = <Lane>lanes.lanes[lanes.choose(0 if partition is None else partition, NULL, -1)]
        builder, self._spare = self._spare, None
        if builder is None:
            builder = BatchBuilder(16384)
        builder.reset_fast()
        size = _encode_all(builder, given, keys, headers, timestamp, lanes)
        return self._store(lane, builder, size, expected_offset)

    def append_built(self, BatchBuilder builder not None, partition=0, expected_offset=None):
        """Store the records of a builder in one batch, as `append_batch`; the builder stays the caller's, sealed."""
        cdef TopicLanes lanes
        cdef Lane lane
        if self._generation != self._catalog_bell.words.value or self._catalog_bell.closed:
            self._reload()
        lanes = self._lanes
        if builder.size_bytes > lanes.max_message_bytes:
            raise RecordTooLargeError(
                f"the batch of {builder.count} records has {builder.size_bytes} bytes; "
                f"topic {lanes.name!r} allows max_message_bytes={lanes.max_message_bytes} in one batch"
            )
        lane = <Lane>lanes.lanes[lanes.choose(0 if partition is None else partition, NULL, -1)]
        return self._store_sealed(lane, builder, builder.size_bytes, expected_offset)

    def read(self, offsets, partition=0):
        """The records at `offsets` of a partition (a list of ints or an int64 array), in that order; ascending is fastest.

        What was committed or aborted is not asked. Raises `OffsetOutOfRangeError` when one of them is not in the log, or
        holds no record (any more), `InvalidTypeError`, `CorruptionError`, `UnknownTopicError`.
        """
        cdef Lookup lookup
        cdef Lane lane
        cdef int32_t number
        if self._generation != self._catalog_bell.words.value or self._catalog_bell.closed:
            self._reload()
        number = self._lanes.choose(0 if partition is None else partition, NULL, -1)
        lookup = <Lookup>self._lookups.get(number)
        if lookup is None:
            lane = <Lane>self._lanes.lanes[number]
            lookup = self._lookups[number] = Lookup(lane.source, lane.log, DECOMPRESSED_LIMIT_BYTES + self._lanes.max_message_bytes)
        return lookup.read(offsets)


cdef struct raw_record:
    const char *value
    const char *key
    const char *headers
    Py_ssize_t value_length, key_length, headers_size
    int32_t header_count


cdef int64_t _checked_offset(offset) except -2:
    if isinstance(offset, bool) or not isinstance(offset, int):
        raise InvalidTypeError(f"expected_offset is {type(offset).__name__}; an int is needed")
    if not 0 <= offset < INT64_MAX:
        raise InvalidArgumentError(f"expected_offset is {offset}; allowed is 0 or more")
    return offset


cdef list _listed(items, str name, Py_ssize_t count):
    """A list of our own, that keeps the items alive while they are encoded."""
    if isinstance(items, (str, bytes, bytearray, memoryview, dict)):
        raise InvalidTypeError(f"{name} is {type(items).__name__}; a list is needed")
    try:
        listed = list(items)
    except TypeError:
        raise InvalidTypeError(f"{name} is {type(items).__name__}; a list is needed") from None
    if count < 0 and not listed:
        raise InvalidArgumentError(f"{name} is empty; 1 or more are needed")
    if 0 <= count != len(listed):
        raise InvalidArgumentError(f"{name} has {len(listed)} items; there are {count} values")
    return listed


cdef int _bytes_of(list items, Py_ssize_t place, str name, const char **data, Py_ssize_t *length) except -1:
    cdef object item = items[place]
    if item is None:
        data[0] = NULL
        length[0] = -1
        return 0
    if type(item) is not bytes:
        if not isinstance(item, (bytes, bytearray, memoryview)):
            raise InvalidTypeError(f"{name}[{place}] is {type(item).__name__}; bytes or None are needed")
        item = bytes(item)
        items[place] = item  # the list keeps it alive
    data[0] = PyBytes_AS_STRING(item)
    length[0] = PyBytes_GET_SIZE(item)
    return 0


cdef Py_ssize_t _encode_all(
    BatchBuilder builder, list values, keys, headers, int64_t timestamp, TopicLanes lanes,
) except -1:
    """Encode all of them, without the GIL; returns the bytes of keys, values and headers."""
    cdef Py_ssize_t count = PyList_GET_SIZE(values), i, size = 0
    cdef list some_keys = None if keys is None else _listed(keys, "keys", count)
    cdef list some_headers = None if headers is None else _listed(headers, "headers", count)
    cdef bytes encoded
    cdef int rc = 0
    cdef raw_record *r
    cdef raw_record *records = <raw_record *>malloc(count * sizeof(raw_record))
    if records == NULL:
        raise MemoryError()
    try:
        for i in range(count):
            r = &records[i]
            r.key, r.key_length, r.headers, r.headers_size, r.header_count = NULL, -1, NULL, 0, 0
            _bytes_of(values, i, "values", &r.value, &r.value_length)
            if some_keys is not None:
                _bytes_of(some_keys, i, "keys", &r.key, &r.key_length)
            if some_headers is not None and some_headers[i]:
                encoded, r.header_count = encode_headers(some_headers[i])
                some_headers[i] = encoded
                r.headers, r.headers_size = PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded)
            size += max(r.value_length, 0) + max(r.key_length, 0) + r.headers_size
        if size > lanes.max_message_bytes:
            raise RecordTooLargeError(
                f"the {count} records have {size} bytes of keys, values and headers; "
                f"topic {lanes.name!r} allows max_message_bytes={lanes.max_message_bytes} in one batch"
            )
        with nogil:
            rc = builder.reserve(size + count * RECORD_OVERHEAD_MAX)
            for i in range(count):
                if rc:
                    break
                r = &records[i]
                rc = builder.append_raw(
                    r.value, r.value_length, r.key, r.key_length, r.headers, r.headers_size, r.header_count, timestamp,
                )
        if rc:
            raise MemoryError()
    finally:
        free(records)
    return size

