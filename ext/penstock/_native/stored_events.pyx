"""Events out of the log: walks stored batches and makes an object of each event that is asked for.

Every batch is checked before anything in it is believed; what lies between two rows of an index is passed over by its
headers. Thread safety: one thread at a time per reader. Crash policy: nothing is written.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport INT64_MAX, int32_t, int64_t
from libc.string cimport memcmp

from penstock._native.format cimport BATCH_HEADER_BYTES, BATCH_LAST_OFFSET_DELTA, BATCH_LENGTH, BATCH_LOG_OVERHEAD, load_be32, load_be64, record_fields, record_read
from penstock._native.log_region cimport LogRegion
from penstock._native.partition cimport Partition
from penstock._native.postings cimport RECORD_BROKEN, RECORD_EVENT, event_fields, event_read, tag_read
from penstock._native.records cimport BatchWalker, Record
from penstock._native.region cimport Region

from penstock.errors import CorruptionError


cdef tuple _nothing = ()


@cython.no_gc
cdef class StoredEvent:
    """An event as it lies in the log: what its record says, and the envelope's JSON as `value`."""

    cdef readonly str stream
    cdef readonly str type
    cdef readonly bytes value
    cdef readonly tuple tags
    cdef readonly int64_t version
    cdef readonly int64_t schema_version
    cdef readonly int64_t position
    cdef readonly int64_t timestamp_ms
    cdef public object _envelope
    cdef public object _event
    cdef readonly object _owner

    def __init__(self, Record record not None, owner=None):
        """The event of a record that was read otherwise. Raises `CorruptionError` when it is none."""
        headers = record.headers
        if record.key is None or [name for name, _ in headers[:3]] != ["version", "type", "schema"]:
            raise CorruptionError(
                f"the record at offset {record.offset} is no event", expected="headers version, type, schema", got=headers
            )
        self.stream = record.key.decode("utf-8", "surrogateescape")
        self.version = int(headers[0][1])
        self.type = headers[1][1].decode("utf-8", "surrogateescape")
        self.schema_version = int(headers[2][1])
        self.tags = tuple([value.decode("utf-8", "surrogateescape") for name, value in headers[3:] if name == "tag" and value is not None])
        self.value = b"" if record.value is None else record.value
        self.position = record.offset + 1
        self.timestamp_ms = record.timestamp_ms
        self._owner = owner


cdef class EventReader:
    """`EventReader(cls, owner, limit_bytes)`: makes objects of `cls`, a subclass of `StoredEvent`, that know their `_owner`;
    `__init__` is not called."""

    cdef object cls
    cdef object owner
    cdef Py_ssize_t limit_bytes
    cdef bytes last_type
    cdef str last_type_text
    cdef bytes last_key
    cdef str last_stream

    def __init__(self, cls not None, owner, Py_ssize_t limit_bytes):
        if not issubclass(cls, StoredEvent):
            raise TypeError(f"cls is {cls!r}; a subclass of StoredEvent is needed")
        self.cls = cls
        self.owner = owner
        self.limit_bytes = limit_bytes
        self.last_type = self.last_key = b""
        self.last_type_text = self.last_stream = ""

    cdef StoredEvent _make(self, BatchWalker walker, const record_fields *r, const event_fields *e):
        cdef StoredEvent event = <StoredEvent>((<PyTypeObject *>self.cls).tp_new(<type>self.cls, <PyObject *>_nothing, NULL))
        cdef const char *p = e.tags
        cdef const char *tag
        cdef int64_t i, length
        cdef list tags
        if e.type_length != PyBytes_GET_SIZE(self.last_type) or memcmp(e.type, PyBytes_AS_STRING(self.last_type), e.type_length) != 0:
            self.last_type = PyBytes_FromStringAndSize(e.type, e.type_length)
            self.last_type_text = self.last_type.decode("utf-8", "surrogateescape")
        if r.key_length != PyBytes_GET_SIZE(self.last_key) or memcmp(r.key, PyBytes_AS_STRING(self.last_key), r.key_length) != 0:
            self.last_key = PyBytes_FromStringAndSize(r.key, r.key_length)
            self.last_stream = self.last_key.decode("utf-8", "surrogateescape")
        event._owner = self.owner
        event.type = self.last_type_text
        event.stream = self.last_stream
        event.value = PyBytes_FromStringAndSize(r.value, r.value_length)
        event.version, event.schema_version = e.version, e.schema
        event.position = walker.base_offset + r.offset_delta + 1
        event.timestamp_ms = walker.max_timestamp if walker.log_append_time else walker.base_timestamp + r.timestamp_delta
        if e.tag_count == 0:
            event.tags = ()
            return event
        tags = []
        for i in range(e.tag_count):
            p = tag_read(p, r.end, &tag, &length)
            if p == NULL:
                raise _broken(walker)
            if tag != NULL:
                tags.append(tag[:length].decode("utf-8", "surrogateescape"))
        event.tags = tuple(tags)
        return event

    cdef int _take_batch(
        self, BatchWalker walker, int64_t from_offset, int64_t end_offset, bytes key, int64_t first, int64_t last, list out,
    ) except -1:
        """Events at or behind `from_offset`; with `key` those of this stream that begin there, of versions first to last."""
        cdef const char *p = walker.payload
        cdef int64_t i, offset
        cdef record_fields r
        cdef event_fields e
        cdef int kind
        for i in range(walker.count):
            p = record_read(p, walker.payload_end, &r)
            if p == NULL or r.offset_delta < 0 or r.offset_delta > walker.last_offset_delta:
                raise _broken(walker)
            offset = walker.base_offset + r.offset_delta
            if offset < from_offset:
                continue
            if offset >= end_offset:
                break
            kind = event_read(&r, &e)
            if kind == RECORD_BROKEN:
                raise _broken(walker)
            if key is not None:
                if kind != RECORD_EVENT or r.key_length != PyBytes_GET_SIZE(key) or memcmp(r.key, PyBytes_AS_STRING(key), r.key_length) != 0:
                    break
                if e.version > last:
                    break
                if e.version < first:
                    continue
            if kind == RECORD_EVENT:
                out.append(self._make(walker, &r, &e))
        return 0

    def take(self, Region region not None, int64_t from_offset, int64_t end_offset=INT64_MAX):
        """The events of a region from `from_offset` to before `end_offset`. Raises `CorruptionError`."""
        cdef list out = []
        cdef BatchWalker walker = BatchWalker(region, self.limit_bytes)
        while walker.advance():
            if walker.base_offset >= end_offset:
                break
            if not walker.hidden and walker.base_offset + walker.last_offset_delta >= from_offset:
                self._take_batch(walker, from_offset, end_offset, None, 0, 0, out)
        return out

    def take_rows(self, Partition log not None, list rows not None, bytes key, int64_t first, int64_t last, Py_ssize_t fetch_bytes):
        """The events at these rows of an index, in the order of the rows, which ascends.

        With `key` the events of that stream that begin at each row, of versions `first` to `last` (another stream of the
        same hash has none); without, all events of the row's batch at or behind its offset. Raises `CorruptionError`.
        """
        cdef list out = []
        cdef LogRegion region = None
        cdef BatchWalker walker = None
        cdef int64_t number, offset, done = -1
        for number, offset in rows:
            if key is not None and number > last:
                continue
            if offset < done:
                continue  # in the batch before
            if region is None or offset >= region.next_offset or not _skip_to(walker, offset):
                region = log.fetch(offset, fetch_bytes)
                if region is None:
                    break
                walker = BatchWalker(region, self.limit_bytes)
            if key is not None and walker.batch != NULL and walker.base_offset <= offset <= walker.base_offset + walker.last_offset_delta:
                pass  # the stream's rows lie in the batch that is open
            elif not walker.advance():
                region = None
                continue
            if walker.hidden:
                continue
            if key is None:
                done = walker.base_offset + walker.last_offset_delta + 1
            self._take_batch(walker, offset, INT64_MAX, key, first, last, out)
        return out

    def last_version(self, Partition log not None, int64_t offset, bytes key not None):
        """Version of the last of the events of a stream that begin at `offset` and lie in one batch; -1: there are none."""
        cdef LogRegion region = log.fetch(offset, 1)
        cdef BatchWalker walker
        cdef const char *p
        cdef int64_t i, found = -1
        cdef record_fields r
        cdef event_fields e
        if region is None:
            return -1
        walker = BatchWalker(region, self.limit_bytes)
        if not walker.advance() or walker.hidden:
            return -1
        p = walker.payload
        for i in range(walker.count):
            p = record_read(p, walker.payload_end, &r)
            if p == NULL or r.offset_delta < 0 or r.offset_delta > walker.last_offset_delta:
                raise _broken(walker)
            if walker.base_offset + r.offset_delta < offset:
                continue
            if r.key_length != PyBytes_GET_SIZE(key) or memcmp(r.key, PyBytes_AS_STRING(key), r.key_length) != 0:
                break
            if event_read(&r, &e) != RECORD_EVENT:
                break
            found = e.version
        return found


cdef bint _skip_to(BatchWalker walker, int64_t offset) noexcept:
    """Go to the batch that holds `offset`, without looking into those before it. False when headers lead nowhere."""
    cdef const char *p = walker.next_batch
    cdef int64_t size, last
    if walker.batch != NULL and offset <= walker.base_offset + walker.last_offset_delta:
        return True
    while walker.end - p >= BATCH_HEADER_BYTES:
        size = <int64_t><int32_t>load_be32(p + BATCH_LENGTH) + BATCH_LOG_OVERHEAD
        last = <int64_t>load_be64(p) + <int32_t>load_be32(p + BATCH_LAST_OFFSET_DELTA)
        if size < BATCH_HEADER_BYTES or size > walker.end - p:
            return False
        if last >= offset:
            walker.next_batch = p
            return True
        p += size
    return False


cdef object _broken(BatchWalker walker):
    return CorruptionError(
        "a record contradicts its size", walker.region.path, walker.region.position + (walker.batch - walker.region.data),
        f"{walker.count} whole records", "other bytes",
    )
