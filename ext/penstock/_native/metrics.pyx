"""The file of counters and histograms that all processes of a directory share; see `metrics.h`.

Thread and process safety: counting and reading, any; `allocate` and `retire` need the lock that
`penstock.storage.metrics_store` holds. Crash policy: see `metrics.h`.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t
from libc.string cimport memcmp, memcpy, memset

from penstock._native.control cimport control_slot, control_snapshot, file_reserve
from penstock._native.mapping cimport Mapping
from penstock._native.partition cimport Partition

from penstock._native.mapping import os_error
from penstock.errors import InvalidArgumentError

cdef extern from "metrics.h" nogil:
    """
    #define METRICS_WORD(type, field) ((int)(offsetof(type, field) / 8))
    /* Only what comes from now on counts; who appends at this moment says so itself. */
    static inline void metrics_begin(metrics_partition *m, int64_t end) {
        int64_t none = -1;
        __atomic_compare_exchange_n(&m->seen_end, &none, end, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    static inline void metrics_copy(int64_t *to, const int64_t *from, int64_t words) {
        for (int64_t i = 0; i < words; i++) to[i] = __atomic_load_n(from + i, __ATOMIC_RELAXED);
    }
    """
    enum:
        W_RECORDS_IN "METRICS_WORD(metrics_partition, records_in)"
        W_RECORDS_OUT "METRICS_WORD(metrics_partition, records_out)"
        W_SYNCS "METRICS_WORD(metrics_partition, syncs)"
        W_SAVED "METRICS_WORD(metrics_partition, saved_bytes)"
        W_ERRORS "METRICS_WORD(metrics_partition, errors)"
        W_RECEIVED "METRICS_WORD(metrics_share, received)"
        W_ACKNOWLEDGED "METRICS_WORD(metrics_share, acknowledged)"
        W_COMMITS "METRICS_WORD(metrics_group, commits)"
        W_HISTOGRAMS "METRICS_WORD(metrics_partition, append_ns)"
        W_HISTOGRAM_WORDS "((int)(sizeof(metrics_histogram) / 8))"
    void metrics_begin(metrics_partition *m, int64_t end)
    void metrics_copy(int64_t *to, const int64_t *source, int64_t words)

PARTITION, SHARE, GROUP = METRICS_PARTITION, METRICS_SHARE, METRICS_GROUP
SLOT_WORDS = METRICS_SLOT_BYTES // 8
BUCKETS = METRICS_BUCKETS
ERRORS = ("disk_full", "io", "corruption", "out_of_range", "fenced", "out_of_order", "too_large", "conflict", "full")
HISTOGRAM_WORDS = W_HISTOGRAM_WORDS
HISTOGRAMS = {
    PARTITION: ("append_ns", "poll_ns", "sync_ns", "batch_records", "batch_bytes"),
    SHARE: ("wait_ms", "processing_us", "receive_records"),
    GROUP: (),
}
WORDS = {
    PARTITION: {
        **{name: W_RECORDS_IN + i for i, name in enumerate(("records_in", "bytes_in", "batches_in", "seen_end"))},
        **{name: W_RECORDS_OUT + i for i, name in enumerate(("records_out", "bytes_out", "fetches", "polls"))},
        "syncs": W_SYNCS,
        "saved_bytes": W_SAVED,
        **{name: W_ERRORS + i for i, name in enumerate(ERRORS)},
    },
    SHARE: {
        **{name: W_RECEIVED + i for i, name in enumerate(("received", "redelivered", "timed_out", "receives"))},
        **{
            name: W_ACKNOWLEDGED + i
            for i, name in enumerate(("acknowledged", "negative", "released", "extended", "dead", "expired", "dropped", "stale"))
        },
    },
    GROUP: {"commits": W_COMMITS, "refused": W_COMMITS + 1},
}
"""Where each counter is in a slot, in words; histograms (a sum, then the buckets) begin at `FIRST_HISTOGRAM`."""
FIRST_HISTOGRAM = W_HISTOGRAMS
HEAD_WORDS = {"state": 0, "kind": 1, "number": 2, "created_ms": 3}


def bucket_of(int64_t value):
    """The bucket of a histogram that a value is counted in."""
    return metrics_bucket(value)


cdef class MetricsFile:
    """`MetricsFile(path)`: made when it does not exist."""

    def __init__(self, str path not None):
        self.map = Mapping(path, <Py_ssize_t>METRICS_SLOTS * METRICS_SLOT_BYTES, True, True)
        self.head = <metrics_file_head *>self.map.data

    cdef metrics_head *slot(self, int64_t number) noexcept:
        return <metrics_head *>(self.map.data + number * METRICS_SLOT_BYTES)

    @property
    def used(self):
        """Slots below this number were given out once."""
        cdef int64_t size = self.map.file_size() // METRICS_SLOT_BYTES
        if size == 0 or memcmp(self.head.magic, METRICS_MAGIC, 8) != 0:
            return 1
        return min(max(self.head.used, 1), size)

    def names(self, int64_t first, int64_t last):
        """(slot, kind, topic, partition, group) of the slots in use, in [first, last)."""
        cdef int64_t number
        cdef metrics_head *head
        found = []
        for number in range(max(first, 1), min(last, self.used)):
            head = self.slot(number)
            if head.state == METRICS_USED:
                name = self._name(number)
                if name is not None:
                    found.append((number, *name))
        return found

    def _name(self, int64_t number):
        cdef metrics_head *head = self.slot(number)
        cdef int64_t topic = head.topic_bytes, group = head.group_bytes
        if topic < 0 or group < 0 or topic + group > METRICS_NAMES or not METRICS_PARTITION <= head.kind <= METRICS_GROUP:
            return None  # of a machine that went down: half written
        try:
            return head.kind, head.names[:topic].decode(), head.number, head.names[topic:topic + group].decode()
        except UnicodeDecodeError:
            return None

    def is_of(self, int64_t number, int kind, str topic not None, int64_t partition, str group not None):
        """Whether the slot is in use for this."""
        return (
            0 < number < self.used and self.slot(number).state == METRICS_USED
            and self._name(number) == (kind, topic, partition, group)
        )

    def allocate(self, int kind, str topic not None, int64_t partition, str group not None, int64_t now_ms, int64_t reuse_ms):
        """A new slot, or one that was given back more than `reuse_ms` ago; None when all are in use. Raises `DiskFullError`."""
        cdef bytes names = topic.encode() + group.encode()
        cdef int64_t number, used = self.used
        cdef metrics_head *head
        if len(names) > METRICS_NAMES:
            raise InvalidArgumentError(f"topic and group have {len(names)} bytes of name; at most {METRICS_NAMES} are counted for")
        for number in range(1, used):
            head = self.slot(number)
            if head.state == METRICS_RETIRED and now_ms - head.retired_ms > reuse_ms:
                break
        else:
            if used >= METRICS_SLOTS:
                return None
            number = used
            self._reserve(used + 1)
        head = self.slot(number)
        memset(head, 0, METRICS_SLOT_BYTES)
        head.kind = kind
        head.number = partition
        head.created_ms = now_ms
        head.topic_bytes = len(topic.encode())
        head.group_bytes = len(names) - head.topic_bytes
        memcpy(head.names, PyBytes_AS_STRING(names), len(names))
        if kind == METRICS_PARTITION:
            (<metrics_partition *>head).seen_end = -1
        head.state = METRICS_USED
        memcpy(self.head.magic, METRICS_MAGIC, 8)
        self.head.used = max(used, number + 1)
        return number

    def _reserve(self, int64_t slots):
        cdef int rc
        cdef int64_t size = self.map.file_size()
        cdef int64_t wanted = (slots + METRICS_GROWTH - 1) // METRICS_GROWTH * METRICS_GROWTH * METRICS_SLOT_BYTES
        if size < slots * METRICS_SLOT_BYTES:
            rc = file_reserve(self.map.fd, size, wanted)
            if rc:
                raise os_error(rc, self.map.path, "growing")

    def retire(self, int64_t number, int64_t now_ms):
        """What the slot was for is gone. It is not given out again for a while: others may still count in it."""
        cdef metrics_head *head = self.slot(number)
        head.retired_ms = now_ms
        head.state = METRICS_RETIRED

    def read(self):
        """A copy of the slots that were ever given out (and slot 0), as bytes of `SLOT_WORDS` words each."""
        cdef int64_t used = self.used
        cdef bytes out
        if self.map.file_size() < used * METRICS_SLOT_BYTES:
            return b""
        out = PyBytes_FromStringAndSize(NULL, used * METRICS_SLOT_BYTES)
        cdef int64_t *words = <int64_t *>PyBytes_AS_STRING(out)
        with nogil:
            metrics_copy(words, <int64_t *>self.map.data, used * METRICS_SLOT_BYTES // 8)
        return out


cdef class MetricsBlock:
    """`MetricsBlock(file, number)`: one slot, kept mapped."""

    def __init__(self, MetricsFile file not None, int64_t number):
        if not 0 < number < file.used:
            raise InvalidArgumentError(f"number is {number}; {file.map.path} has slots 1 to {file.used - 1}")
        self.file = file
        self.number = number
        self.data = file.slot(number)

    def add(self, int64_t word, int64_t count):
        """Add to a counter (see `WORDS`)."""
        if not 160 <= word < METRICS_SLOT_BYTES // 8:
            raise InvalidArgumentError(f"word is {word}; allowed is 160 to {METRICS_SLOT_BYTES // 8 - 1}")
        metrics_add(<int64_t *>self.data + word, count)

    def get(self, int64_t word):
        """A counter (see `WORDS`)."""
        if not 0 <= word < METRICS_SLOT_BYTES // 8:
            raise InvalidArgumentError(f"word is {word}; allowed is 0 to {METRICS_SLOT_BYTES // 8 - 1}")
        return (<int64_t *>self.data)[word]

    def attach(self, Partition log not None):
        """Count what this handle on a partition does from now on."""
        cdef metrics_partition *m = <metrics_partition *>self.data
        cdef control_slot slot
        control_snapshot(log.control, &slot)
        metrics_begin(m, slot.log_end_offset)
        log.metrics_block = self
        log.writer.metrics = m
