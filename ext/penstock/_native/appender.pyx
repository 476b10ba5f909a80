"""Storing one record at a time: the native half of `Topic`."""

from cpython.buffer cimport PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t

from penstock._native.builder cimport BatchBuilder
from penstock._native.lane cimport Lane, TopicLanes, checked_timestamp, key_missing, open_view, system_time_ms, too_large
from penstock._native.partition cimport Bell
from penstock._native.records cimport make_metadata

from penstock._native.builder import encode_headers
from penstock.clock import SystemClock

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
        self._generation = generation
        return 0

    def append(self, value, key=None, headers=None, timestamp_ms=None, partition=None):
        """Store one record; it is stored when this returns, as `RecordMetadata`.

        Arguments and errors as in `Producer.send`; `DiskFullError` means that nothing was stored.
        """
        cdef Py_buffer value_view, key_view
        cdef bint value_held = False, key_held = False
        cdef const char *value_data = NULL
        cdef const char *key_data = NULL
        cdef Py_ssize_t value_length = -1, key_length = -1, size = 0
        cdef bytes encoded = None
        cdef int32_t header_count = 0, number
        cdef int64_t timestamp, offset
        cdef TopicLanes lanes
        cdef Lane lane
        cdef BatchBuilder builder
        cdef int rc
        if self._generation != self._catalog_bell.words.value or self._broker._closed:
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
                too_large(size, lanes.max_message_bytes, lanes.name)
            if lanes.keyed and key_length < 0:
                key_missing(lanes.name)
            if timestamp_ms is not None:
                timestamp = checked_timestamp(timestamp_ms)
            else:
                timestamp = system_time_ms() if self._system_clock else self._clock.time_ms()
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
            builder.seal(lanes.codec if size >= COMPRESS_FROM_BYTES else 0)
            if lanes.log_append_time:
                timestamp = system_time_ms() if self._system_clock else self._clock.time_ms()
                builder.set_log_append_time(timestamp)
            offset = lane.log.append_raw(builder.sealed, builder.sealed_size)
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
        builder.reset_fast()
        if builder.capacity <= 1 << 20:
            self._spare = builder
        return make_metadata(lane.source, offset, timestamp)

