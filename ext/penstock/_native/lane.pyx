"""What a producer holds of a topic: per partition a *lane*, the open batch and the batches that wait to be stored.

Thread safety: fields change only under the GIL; `lock` keeps the order of a lane's batches while one is stored.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyObject_GetBuffer
from libc.stdint cimport int32_t, int64_t, uint64_t

from penstock._native.metrics cimport ERROR_TOO_LARGE, metrics_add, metrics_error
from penstock._native.murmur2 cimport partition_of

import threading
from collections import deque

from penstock.errors import InvalidArgumentError, InvalidTypeError, RecordTooLargeError, UnknownTopicError


cdef extern from "<time.h>" nogil:
    struct timespec:
        int64_t tv_sec
        long tv_nsec
    int CLOCK_REALTIME
    int clock_gettime(int clock, timespec *out)


cdef int64_t system_time_ms() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return now.tv_sec * 1000 + now.tv_nsec // 1000000


cdef int too_large(Py_ssize_t size, TopicLanes lanes) except -1:
    metrics_error((<Lane>lanes.lanes[0]).log.writer.metrics, ERROR_TOO_LARGE)
    raise RecordTooLargeError(
        f"the record has {size} bytes of key, value and headers; topic {lanes.name!r} allows max_message_bytes={lanes.max_message_bytes}"
    )


cdef int key_missing(str topic) except -1:
    raise InvalidArgumentError(f"key is None; topic {topic!r} is compacted, and keeps the newest record of each key")


cdef int64_t checked_timestamp(timestamp_ms) except -1:
    if isinstance(timestamp_ms, bool) or not isinstance(timestamp_ms, int):
        raise InvalidTypeError(f"timestamp_ms is {type(timestamp_ms).__name__}; an int of milliseconds is needed")
    if not 0 <= timestamp_ms < 1 << 62:
        raise InvalidArgumentError(f"timestamp_ms is {timestamp_ms}; allowed is 0 to 2**62 - 1")
    return timestamp_ms


cdef class Waiting:
    """A full batch that waits to be stored; `ready` once it is sealed."""

    @property
    def size_bytes(self):
        """Bytes of the encoded records."""
        return self.builder.size_bytes

    @property
    def count(self):
        """Number of records."""
        return self.builder.count


cdef class Lane:
    """The unsent records of one partition."""

    def __init__(self, Source source not None, Partition log not None):
        self.source = source
        self.log = log
        self.waiting = deque()
        self.lock = threading.Lock()

    @property
    def open_records(self):
        """Records in the open batch."""
        return 0 if self.builder is None else self.builder.count

    @property
    def open_bytes(self):
        """Bytes of the open batch."""
        return 0 if self.builder is None else self.builder.size_bytes

    cdef int retire(self) except -1:
        """Let the open batch wait to be stored; the next record begins a new one."""
        cdef Waiting waiting
        if self.builder is not None and self.builder.count:
            waiting = Waiting.__new__(Waiting)
            waiting.builder, waiting.callbacks = self.builder, self.callbacks
            waiting.offset = -1
            self.builder = None
            self.callbacks = None
            self.waiting.append(waiting)
        return 0

    cdef void saved(self, BatchBuilder builder) noexcept:
        """Count what compression took off a batch that was stored."""
        if self.log.writer.metrics != NULL and builder.sealed_size != builder.size_bytes:
            metrics_add(&self.log.writer.metrics.saved_bytes, builder.size_bytes - builder.sealed_size)

    def renew(self):
        """In a forked child: forget the parent's records and locks."""
        self.builder = None
        self.callbacks = None
        self.gathering = False
        self.waiting = deque()
        self.lock = threading.Lock()


cdef class TopicLanes:
    """The lanes of a topic, with what its configuration asks of a producer."""

    def __init__(self, str name not None, config, logs, int codec, uint64_t seed):
        self.name = name
        self.config = config
        self.partitions = config.partitions
        self.max_message_bytes = config.max_message_bytes
        self.log_append_time = config.message_timestamp_type == "LogAppendTime"
        self.codec = codec
        self.keyed = config.compacts
        self.lanes = [Lane(Source(name, number), log) for number, log in enumerate(logs)]
        self.seed = seed | 1
        self.sticky = -1
        self.switch()

    cdef int number_on(self, TopicLanes before) except -1:
        """These lanes take the place of others of the same topic: their batches are numbered on."""
        cdef Lane lane, former
        for one, other in zip(self.lanes, before.lanes):
            lane, former = one, other
            lane.sequence = former.sequence
        return 0

    cdef int32_t switch(self) noexcept:
        """Another partition for records without a key (KIP-480: sticky until the batch is full)."""
        cdef int32_t before = self.sticky
        if self.partitions > 1:
            self.seed ^= self.seed << 13
            self.seed ^= self.seed >> 7
            self.seed ^= self.seed << 17
            self.sticky = <int32_t>(self.seed % <uint64_t>self.partitions)
            if self.sticky == before:
                self.sticky = (before + 1) % self.partitions
        else:
            self.sticky = 0
        return self.sticky

    cdef int32_t choose(self, partition, const char *key, Py_ssize_t key_length) except -1:
        """The partition asked for, the key's (as Kafka's Java client), or the sticky one."""
        if partition is not None:
            if isinstance(partition, bool) or not isinstance(partition, int):
                raise InvalidTypeError(f"partition is {type(partition).__name__}; an int is needed")
            if not 0 <= partition < self.partitions:
                raise UnknownTopicError(f"partition is {partition}; topic {self.name!r} has 0 to {self.partitions - 1}")
            return partition
        if key_length >= 0:
            return partition_of(<const unsigned char *>key, key_length, self.partitions)
        return self.sticky


cdef int open_view(item, Py_buffer *view, str name) except -1:
    if isinstance(item, str):
        raise InvalidTypeError(f"{name} is str; bytes are needed: encode it first, for example with .encode()")
    if not isinstance(item, (bytes, bytearray, memoryview)):
        raise InvalidTypeError(f"{name} is {type(item).__name__}; bytes, bytearray, memoryview or None are needed")
    try:
        PyObject_GetBuffer(item, view, PyBUF_SIMPLE)
        return 1
    except BufferError:
        raise InvalidTypeError(f"{name} is a memoryview that is not contiguous; make bytes of it first") from None
