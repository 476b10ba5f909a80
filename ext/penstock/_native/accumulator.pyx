"""The producer's buffer: records are encoded into the open batch of their partition and stored a batch at a time.

Nothing here runs in the background: a full batch is stored by the thread that fills the next one, so memory is bounded and
an error reaches who causes the load. A record is accepted only once there is room for it; what was accepted is kept, in
order, until it is stored. Thread safety: any thread; state changes under the GIL, and a batch that is encoded or stored
without the GIL is taken out of its lane first.
"""

from cpython.buffer cimport PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int32_t, int64_t, uint32_t

from penstock._native.builder cimport BatchBuilder
from penstock._native.format cimport ATTRIBUTE_TRANSACTIONAL, prefetch_object
from penstock._native.lane cimport Lane, TopicLanes, Waiting, checked_timestamp, key_missing, open_view, system_time_ms, too_large
from penstock._native.bell cimport Bell
from penstock._native.partition cimport APPEND_RUN_MAX, append_batch
from penstock._native.records cimport make_metadata
from penstock._native.words cimport WordTable

import threading
from time import monotonic as _monotonic

from penstock._native.builder import encode_headers
from penstock.clock import SystemClock
from penstock.errors import ClosedError, InvalidArgumentError, InvalidTypeError, TransactionStateError, UnknownTopicError

cdef enum:
    RECORD_ROOM = 36
    AHEAD = 8  # values whose memory is fetched before it is looked at
    CHECKED_BLOCK = 2048
    RUN_BYTES = 1 << 20  # what is stored by one system call


cdef class Accumulator:
    """The native half of `Producer`, which has `_load_topic(name) -> TopicLanes`, `_first_sequence(lane) -> int`,
    `_wake_linger()`, `_enlist()`."""

    def __init__(self, broker, Bell catalog_bell not None, partitioner, Py_ssize_t batch_size, Py_ssize_t buffer_memory, bint eager):
        self._broker = broker
        self._clock = broker.clock
        self._system_clock = type(broker.clock) is SystemClock
        self._catalog_bell = catalog_bell
        self._partitioner = partitioner
        self._batch_size = batch_size
        self._buffer_memory = buffer_memory
        self._eager = eager
        self._topics = {}
        self._former = {}
        self._loading = threading.RLock()
        self._pool = []
        self._producer_id = -1

    def _identify(self, int64_t producer_id, int64_t epoch, WordTable fences, int64_t fence, bint transactional):
        """Number the batches (KIP-98). With `fences`, they are refused once that word is not `epoch`."""
        self._producer_id = producer_id
        self._epoch = epoch
        self._fences = fences
        self._fence = fence
        self._transactional = transactional

    @property
    def producer_id(self):
        """What marks this producer's batches; -1 with `enable_idempotence=False`."""
        return self._producer_id

    # --- sending -----------------------------------------------------------------------------------------------

    def send(self, topic, value, key=None, headers=None, timestamp_ms=None, partition=None, on_delivery=None):
        """Buffer one record; it is stored when its batch is full, after `linger_ms`, or by `flush`.

        `value`, `key`: bytes-like or None. `headers`: (str, bytes or None) pairs. `timestamp_ms`: default now.
        `partition`: default by the key (murmur2, as Kafka's Java client), or without a key sticky until a batch is full.
        `on_delivery(error, metadata)` is called once the record is stored (error None), or dropped by `purge`.
        When this raises, the record was not accepted: `InvalidTypeError`, `RecordTooLargeError`, `UnknownTopicError`,
        `DiskFullError` (earlier records stay buffered and are tried again).
        """
        cdef TopicLanes lanes
        cdef Lane lane
        cdef BatchBuilder builder
        cdef Py_buffer value_view, key_view
        cdef bint value_held = False, key_held = False
        cdef const char *value_data = NULL
        cdef const char *key_data = NULL
        cdef Py_ssize_t value_length = -1, key_length = -1, size = 0
        cdef bytes encoded = None
        cdef int32_t header_count = 0
        cdef int64_t timestamp
        cdef Py_ssize_t before
        cdef int rc
        if self._shut or self._failure is not None or self._idle:
            self._check()
        if self._last is not None and topic is self._last.name and self._generation == self._catalog_bell.words.value:
            lanes = self._last
        else:
            lanes = self._lanes_of(topic)
        try:
            if type(value) is bytes:
                value_data, value_length = PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)
                size = value_length
            elif value is not None:
                value_held = open_view(value, &value_view, "value")
                value_data, value_length = <const char *>value_view.buf, value_view.len
                size = value_length
            if key is not None:
                if type(key) is bytes:
                    key_data, key_length = PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)
                else:
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
            if on_delivery is not None and not callable(on_delivery):
                raise InvalidTypeError(f"on_delivery is {type(on_delivery).__name__}; a callable(error, metadata) is needed")
            timestamp = self._now_ms() if timestamp_ms is None else checked_timestamp(timestamp_ms)
            if partition is None and self._partitioner is not None:
                partition = self._partitioner(lanes.name, key, value, lanes.partitions)
            lane = <Lane>lanes.lanes[lanes.choose(partition, key_data, key_length)]
            builder = lane.builder
            if builder is None or builder.size_bytes + size + RECORD_ROOM > self._batch_size or self._held_bytes > self._buffer_memory:
                if builder is not None and builder.count:
                    self._full(lanes, lane)
                    if partition is None and key_length < 0:
                        lane = <Lane>lanes.lanes[lanes.switch()]
                builder = self._open_batch(lanes, lane)
            before = builder.size_bytes
            rc = builder.append_raw(
                value_data, value_length, key_data, key_length,
                NULL if encoded is None else PyBytes_AS_STRING(encoded), 0 if encoded is None else PyBytes_GET_SIZE(encoded),
                header_count, timestamp,
            )
            if rc:
                raise MemoryError()
            self._held_bytes += builder.size_bytes - before
            if on_delivery is not None:
                if lane.callbacks is None:
                    lane.callbacks = []
                lane.callbacks.append((builder.count - 1, timestamp, on_delivery))
        finally:
            if value_held:
                PyBuffer_Release(&value_view)
            if key_held:
                PyBuffer_Release(&key_view)
        if not self._linger_awake:
            if self._eager:
                lane.retire()
                self._drain(lanes, lane)
            else:
                self._linger_awake = True
                self._wake_linger()

    def send_many(self, topic, values, keys=None, partition=None, timestamp_ms=None):
        """Buffer many records; returns how many. `values`: an iterable of bytes; lists take the fast path.

        `keys`: as many keys (bytes or None), or None. Everything else as in `send`. An error carries `.accepted`, the
        number of records accepted before it: `values[error.accepted:]` is what is left to send.
        """
        cdef TopicLanes lanes
        cdef int64_t timestamp
        if self._shut or self._failure is not None or self._idle:
            self._check()
        lanes = self._lanes_of(topic)
        if isinstance(values, (str, bytes, bytearray, memoryview)):
            raise InvalidTypeError(f"values is {type(values).__name__}; an iterable of bytes is needed")
        timestamp = self._now_ms() if timestamp_ms is None else checked_timestamp(timestamp_ms)
        if lanes.keyed and keys is None:
            key_missing(lanes.name)
        if keys is None and self._partitioner is None:
            if type(values) is list:
                return self._send_list(lanes, values, partition, timestamp)
            return self._send_chunks(lanes, values, partition, timestamp)
        return self._send_keyed(topic, values, keys, partition, timestamp)

    def _send_chunks(self, TopicLanes lanes, values, partition, int64_t timestamp):
        cdef Py_ssize_t sent = 0
        chunk = []
        try:
            for value in values:
                chunk.append(value)
                if len(chunk) == 4096:
                    sent += self._send_list(lanes, chunk, partition, timestamp)
                    chunk = []
            return sent + self._send_list(lanes, chunk, partition, timestamp)
        except Exception as error:
            error.accepted = sent + getattr(error, "accepted", 0)
            raise

    def _send_keyed(self, topic, values, keys, partition, int64_t timestamp):
        cdef Py_ssize_t sent = 0
        if keys is None:
            pairs = ((value, None) for value in values)
        elif type(values) is list and type(keys) is list and len(values) != len(keys):
            raise InvalidArgumentError(f"keys has {len(keys)} items; values has {len(values)}, and as many are needed")
        elif type(values) is list and type(keys) is list and self._partitioner is None and not self._eager:
            return self._send_lists(topic, values, keys, partition, timestamp, False)
        else:
            pairs = zip(values, keys, strict=True)
        try:
            for value, key in pairs:
                self.send(topic, value, key, None, timestamp, partition)
                sent += 1
        except Exception as error:
            error.accepted = sent
            raise
        return sent

    def _send_named(self, topic, list values not None, list names not None, partition):
        """`send_many` with message groups (str, 1 to 128 characters) as keys."""
        if len(values) != len(names):
            raise InvalidArgumentError(f"group_ids has {len(names)} items; values has {len(values)}, and as many are needed")
        self._check()
        return self._send_lists(topic, values, names, partition, self._now_ms(), True)

    cdef Py_ssize_t _send_lists(self, topic, list values, list keys, partition, int64_t timestamp, bint named) except -1:
        """As many values as keys; those that are bytes (`named`: or keys that are str) without a call each."""
        cdef Py_ssize_t i, size, before
        cdef TopicLanes lanes = self._lanes_of(topic)
        cdef Lane lane
        cdef BatchBuilder builder
        cdef const char *key_data
        cdef Py_ssize_t key_length
        for i in range(PyList_GET_SIZE(values)):
            try:
                value, key = values[i], keys[i]
                if named and type(key) is str:
                    if not 1 <= len(<str>key) <= 128:
                        raise InvalidArgumentError(f"group_id is {key!r}; give a str of 1 to 128 characters")
                    if type(value) is not bytes:
                        self.send(topic, value, key.encode(), None, timestamp, partition)
                        continue
                    key_data = PyUnicode_AsUTF8AndSize(key, &key_length)
                elif type(value) is not bytes or type(key) is not bytes:
                    self.send(topic, value, key, None, timestamp, partition)
                    continue
                else:
                    key_data, key_length = PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)
                size = PyBytes_GET_SIZE(value) + key_length
                if size > lanes.max_message_bytes:
                    too_large(size, lanes)
                lane = <Lane>lanes.lanes[lanes.choose(partition, key_data, key_length)]
                builder = lane.builder
                if builder is None or builder.size_bytes + size + RECORD_ROOM > self._batch_size or self._held_bytes > self._buffer_memory:
                    if builder is not None and builder.count:
                        self._full(lanes, lane)
                    builder = self._open_batch(lanes, lane)
                before = builder.size_bytes
                if builder.append_raw(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), key_data, key_length, NULL, 0, 0, timestamp):
                    raise MemoryError()
                self._held_bytes += builder.size_bytes - before
            except Exception as error:
                error.accepted = i
                raise
        if not self._linger_awake and PyList_GET_SIZE(values):
            self._linger_awake = True
            self._wake_linger()
        return PyList_GET_SIZE(values)

    cdef Py_ssize_t _send_list(self, TopicLanes lanes, list values, partition, int64_t timestamp_ms) except -1:
        cdef Py_ssize_t total = PyList_GET_SIZE(values)
        cdef Py_ssize_t done = 0, checked = 0, before
        cdef Lane lane
        cdef BatchBuilder builder
        lane = <Lane>lanes.lanes[lanes.choose(partition, NULL, -1)]
        try:
            while done < total:
                if done >= checked:
                    checked = _check_values(values, done, lanes)
                    if checked == done:
                        if lane.gathering:
                            self._drain(lanes, lane)
                        return done + self._send_mixed(lanes, values[done:], partition, timestamp_ms)
                lane = self._with_room(lanes, lane, partition)
                builder, callbacks = lane.builder, lane.callbacks
                lane.builder = None  # ours alone while the GIL is let go
                lane.callbacks = None
                before = builder.size_bytes
                try:
                    done = builder.append_list(values, done, timestamp_ms, self._batch_size, checked)
                finally:
                    self._held_bytes += builder.size_bytes - before
                    if lane.builder is not None:
                        lane.retire()
                    lane.builder, lane.callbacks = builder, callbacks
            if lane.gathering:
                self._drain(lanes, lane)
        except Exception as error:
            error.accepted = done + getattr(error, "accepted", 0)
            raise
        if total and not self._linger_awake:
            if self._eager:
                self.flush()
            else:
                self._linger_awake = True
                self._wake_linger()
        return total

    def _send_mixed(self, TopicLanes lanes, list values, partition, int64_t timestamp_ms):
        """A list with other bytes-likes (or None) in it: check all of it first, then send one by one."""
        for number, value in enumerate(values):
            if value is not None and not isinstance(value, (bytes, bytearray, memoryview)):
                raise InvalidTypeError(f"values[{number}] is {type(value).__name__}; bytes are needed")
            if value is not None and memoryview(value).nbytes > lanes.max_message_bytes:
                too_large(memoryview(value).nbytes, lanes)
        return self._send_keyed(lanes.name, values, None, partition, timestamp_ms)

    def _send_items(self, topic, buffer, width, bounds, Py_ssize_t total, partition, timestamp_ms):
        """Items of an array: `total` of `width` bytes each, or `buffer[bounds[i]:bounds[i + 1]]` (checked by the caller)."""
        cdef TopicLanes lanes
        cdef Lane lane
        cdef BatchBuilder builder
        cdef Py_ssize_t done = 0, before
        if self._shut or self._failure is not None or self._idle:
            self._check()
        lanes = self._lanes_of(topic)
        if lanes.keyed:
            key_missing(lanes.name)
        now = self._now_ms() if timestamp_ms is None else checked_timestamp(timestamp_ms)
        lane = <Lane>lanes.lanes[lanes.choose(partition, NULL, -1)]
        try:
            while done < total:
                lane = self._with_room(lanes, lane, partition)
                builder, callbacks = lane.builder, lane.callbacks
                lane.builder = None
                lane.callbacks = None
                before = builder.size_bytes
                try:
                    if bounds is None:
                        done = builder.append_fixed(buffer, width, done, total, now, self._batch_size)
                    else:
                        done = builder.append_ranges(buffer, bounds, done, total, now, self._batch_size)
                finally:
                    self._held_bytes += builder.size_bytes - before
                    if lane.builder is not None:
                        lane.retire()
                    lane.builder, lane.callbacks = builder, callbacks
            if lane.gathering:
                self._drain(lanes, lane)
        except Exception as error:
            error.accepted = done
            raise
        if total and not self._linger_awake:
            if self._eager:
                self.flush()
            else:
                self._linger_awake = True
                self._wake_linger()
        return total

    # --- storing -----------------------------------------------------------------------------------------------

    cdef TopicLanes _lanes_of(self, topic):
        cdef TopicLanes lanes
        cdef uint32_t generation = self._catalog_bell.words.value
        found = self._topics.get(topic) if generation == self._generation else None
        if found is None:
            with self._loading:  # two threads with lanes of their own would number their batches alike
                found = self._load_lanes(topic, generation)
        lanes = found
        self._last = lanes
        return lanes

    cdef object _load_lanes(self, topic, uint32_t generation):
        if generation != self._generation:
            self._catalog_changed()
            self._generation = generation
        found = self._topics.get(topic)
        if found is None:
            found = self._load_topic(topic)
            if topic in self._former:
                (<TopicLanes>found).number_on(self._former.pop(topic))
            self._topics[topic] = found
        return found

    def _catalog_changed(self):
        """A topic was created, altered or deleted: store what is buffered by the old configuration, then load anew.

        What cannot be stored stays as it is, the error is raised, and the next call tries again.
        """
        first = None
        self._last = None
        for lanes in list(self._topics.values()):
            if self._broker._configs().get((<TopicLanes>lanes).name) is (<TopicLanes>lanes).config:
                continue
            error = self._store_topic(lanes)
            first = first or error
            if self._is_empty(lanes):
                self._former[(<TopicLanes>lanes).name] = lanes
                del self._topics[(<TopicLanes>lanes).name]
        if first is not None:
            raise first

    cdef bint _is_empty(self, TopicLanes lanes) except -1:
        cdef Lane lane
        for item in lanes.lanes:
            lane = item
            if lane.waiting or lane.builder is not None and lane.builder.count:
                return False
        return True

    cdef int64_t _now_ms(self) except -1:
        return system_time_ms() if self._system_clock else self._clock.time_ms()

    cdef int _check(self) except -1:
        if self._shut:
            raise ClosedError("the producer was closed")
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self._idle:
            raise TransactionStateError("no transaction is open: use `with producer.transaction():` or begin_transaction()")
        return 0

    cdef BatchBuilder _open_batch(self, TopicLanes lanes, Lane lane):
        """The lane's open batch, when there is room for one."""
        if lane.waiting and not lane.gathering:
            self._drain(lanes, lane)
        if self._held_bytes > self._buffer_memory:
            self.flush()
        if lane.builder is None:
            lane.builder = self._pool.pop() if self._pool else BatchBuilder(min(self._batch_size, 16384) + 4096)
            lane.began = _monotonic() if self._system_clock else self._clock.monotonic()
        return lane.builder

    cdef Lane _with_room(self, TopicLanes lanes, Lane lane, partition):
        """The lane to fill next, with an open batch. Full batches of one partition are gathered: see `append_ahead`."""
        if lane.builder is not None and lane.builder.size_bytes >= self._batch_size:
            if partition is None and lanes.partitions > 1:
                self._full(lanes, lane)
                lane = <Lane>lanes.lanes[lanes.switch()]
            else:
                lane.retire()
                lane.gathering = len(lane.waiting) < min(RUN_BYTES // self._batch_size, APPEND_RUN_MAX)
                if not lane.gathering:
                    self._drain(lanes, lane)
        self._open_batch(lanes, lane)
        return lane

    cdef int _full(self, TopicLanes lanes, Lane lane) except -1:
        """The open batch has no room: store what waits, then it."""
        if lane.waiting:
            self._drain(lanes, lane)
        lane.retire()
        return self._drain(lanes, lane)

    cdef int _drain(self, TopicLanes lanes, Lane lane) except -1:
        cdef Waiting waiting
        cdef BatchBuilder builder
        cdef const int64_t *fence = NULL
        stored = []
        if self._fences is not None:
            fence = self._fences.at(self._fence)
        if self._transactional and not lane.enlisted:
            self._enlist()
        try:
            with lane.lock:
                lane.gathering = False
                if lane.sequence < 0 and lane.waiting:
                    lane.sequence = self._first_sequence(lane)
                if len(lane.waiting) > 1 and not lane.log.writer.sync_each:
                    self._store_run(lanes, lane, fence)
                while lane.waiting:
                    waiting = lane.waiting[0]
                    builder = waiting.builder
                    if waiting.offset < 0:
                        self._seal(lanes, waiting, lane.sequence)
                        waiting.offset = lane.log.store_only(builder.sealed, builder.sealed_size, fence, self._epoch)
                        lane.sequence = (lane.sequence + builder.count) & 0x7FFFFFFF
                        lane.saved(builder)
                    if lane.log.writer.sync_each:
                        lane.log.sync_to(waiting.offset + builder.count)  # when this fails, it is not stored again
                    lane.waiting.popleft()
                    self._held_bytes -= builder.size_bytes - 61
                    if waiting.callbacks is not None:
                        stored.append((waiting.callbacks, waiting.offset, builder.max_timestamp_ms if lanes.log_append_time else -1))
                    builder.reset_fast()
                    if len(self._pool) < 64 and builder.capacity <= 4 * self._batch_size:
                        self._pool.append(builder)
        finally:
            for callbacks, offset, stamp in stored:
                for place, timestamp, on_delivery in callbacks:
                    on_delivery(None, make_metadata(lane.source, offset + place, timestamp if stamp < 0 else stamp))
        return 0

    cdef int _seal(self, TopicLanes lanes, Waiting waiting, int32_t sequence) except -1:
        """Make a batch ready to be stored. `sequence`: of its first record."""
        cdef BatchBuilder builder = waiting.builder
        if not waiting.ready:
            builder.seal(
                lanes.codec, False, self._producer_id, <int>self._epoch if self._producer_id >= 0 else -1,
                sequence if self._producer_id >= 0 else -1, ATTRIBUTE_TRANSACTIONAL if self._transactional else 0,
            )
            waiting.ready = True
        if lanes.log_append_time:
            builder.set_log_append_time(self._now_ms())
        return 0

    cdef int _store_run(self, TopicLanes lanes, Lane lane, const int64_t *fence) except -1:
        """Store the waiting batches together, as far as that can be done. Requires the lane's lock."""
        cdef append_batch run[APPEND_RUN_MAX]
        cdef int count = 0, stored, i
        cdef int32_t sequence = lane.sequence
        cdef Waiting waiting
        for i in range(min(len(lane.waiting), APPEND_RUN_MAX)):
            waiting = lane.waiting[i]
            if waiting.offset >= 0:
                return 0
            self._seal(lanes, waiting, sequence)
            sequence = (sequence + waiting.builder.count) & 0x7FFFFFFF
            run[i].data, run[i].size = waiting.builder.sealed, waiting.builder.sealed_size
            count += 1
        stored = lane.log.store_run(run, count, fence, self._epoch)
        for i in range(stored):
            waiting = lane.waiting[i]
            waiting.offset = run[i].offset
            lane.sequence = (lane.sequence + waiting.builder.count) & 0x7FFFFFFF
            lane.saved(waiting.builder)
        return 0

    def _store_topic(self, TopicLanes lanes not None, older_than=None):
        """Store the topic's records (only of batches begun before `older_than`, if given); the first error, or None."""
        first = None
        cdef Lane lane
        for item in lanes.lanes:
            lane = item
            if older_than is not None and lane.began > older_than and not lane.waiting:
                continue
            try:
                lane.retire()
                if lane.waiting:
                    self._drain(lanes, lane)
            except Exception as error:
                first = first or error
                if isinstance(error, UnknownTopicError) and not self._transactional:
                    self._drop([lanes], error)  # it can never be stored
                    break
        return first

    def flush(self):
        """Store everything buffered; with `fsync="always"` it is on the disk when this returns.

        Every partition is tried; the first error is raised, and what could not be stored is kept for the next try. Only
        records of a topic that was deleted are dropped: their `on_delivery` gets the `UnknownTopicError` that is raised.
        """
        first = None
        if self._shut:
            self._check()
        self._failure = None
        for lanes in list(self._topics.values()):
            error = self._store_topic(lanes)
            first = first or error
        if first is not None:
            raise first
        self._failure = None  # of the linger thread, meanwhile: what it could not store is stored now

    @property
    def buffered_records(self):
        """Records accepted and not yet stored."""
        cdef Lane lane
        total = 0
        for lanes in list(self._topics.values()):
            for item in (<TopicLanes>lanes).lanes:
                lane = item
                total += lane.open_records + sum(waiting.count for waiting in list(lane.waiting))
        return total

    @property
    def buffered_bytes(self):
        """Bytes of the records accepted and not yet stored."""
        cdef Lane lane
        total = 0
        for lanes in list(self._topics.values()):
            for item in (<TopicLanes>lanes).lanes:
                lane = item
                total += lane.open_bytes + sum(waiting.size_bytes for waiting in list(lane.waiting))
        return total

    def purge(self):
        """Drop what is buffered; each `on_delivery` gets a `ClosedError`. Returns how many records were dropped."""
        dropped = self._drop(list(self._topics.values()), ClosedError("the record was dropped by purge()"))
        self._failure = None
        return dropped

    def _drop(self, list topics, error):
        """Drop what is buffered for these topics; each `on_delivery` gets the error."""
        cdef Lane lane
        cdef Waiting waiting
        dropped = 0
        calls = []
        for lanes in topics:
            for item in (<TopicLanes>lanes).lanes:
                lane = item
                with lane.lock:
                    lane.retire()
                    while lane.waiting:
                        waiting = lane.waiting.popleft()
                        dropped += waiting.builder.count
                        self._held_bytes -= waiting.builder.size_bytes - 61
                        calls.extend(waiting.callbacks or ())
        for _, _, on_delivery in calls:
            on_delivery(error, None)
        return dropped

    def _loaded(self):
        """The topics that were sent to."""
        return list(self._topics.values())

    def _is_system_clock(self):
        return self._system_clock

    def _forget(self):
        """In a forked child: what is buffered is the parent's."""
        self._topics = {}
        self._former = {}
        self._loading = threading.RLock()
        self._last = None
        self._pool = []
        self._held_bytes = 0
        self._failure = None

    def _shut_down(self):
        """Refuse everything from now on."""
        self._shut = True
        self._topics = {}
        self._last = None

    @property
    def closed(self):
        """Whether `close` was called."""
        return self._shut


cdef Py_ssize_t _check_values(list values, Py_ssize_t start, TopicLanes lanes) except -1:
    """Look at the next block of a list, while it is on its way into the cache: where plain bytes of allowed size end."""
    cdef Py_ssize_t stop = min(PyList_GET_SIZE(values), start + CHECKED_BLOCK), i
    for i in range(start, stop):
        if i + AHEAD < stop:
            prefetch_object(PyList_GET_ITEM(values, i + AHEAD))
        item = <object>PyList_GET_ITEM(values, i)
        if type(item) is not bytes:
            return start
        if PyBytes_GET_SIZE(item) > lanes.max_message_bytes:
            too_large(PyBytes_GET_SIZE(item), lanes)
    return stop
