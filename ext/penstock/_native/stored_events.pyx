"""Events out of the log: walks stored batches and makes an object of each event that is asked for.

Every batch is checked before anything in it is believed; what lies between two rows of an index is passed over by its
headers. Thread safety: one thread at a time per reader. Crash policy: nothing is written.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport INT64_MAX, int32_t, int64_t
from libc.string cimport memchr, memcmp

from penstock._native.format cimport VARINT_MAX_BYTES, BATCH_HEADER_BYTES, BATCH_LAST_OFFSET_DELTA, BATCH_LENGTH, BATCH_LOG_OVERHEAD, load_be32, load_be64, record_fields, record_read, varint_read
from penstock._native.log_region cimport LogRegion
from penstock._native.partition cimport Partition
from penstock._native.postings cimport RECORD_BROKEN, RECORD_EVENT, event_fields, event_read, tag_read
from penstock._native.records cimport BatchWalker, Record
from penstock._native.region cimport Region

from penstock.errors import CorruptionError

cdef extern from "string.h" nogil:
    const void *memmem(const void *, size_t, const void *, size_t)

cdef tuple _nothing = ()
cdef Decoders _decoders = None


def set_decoders(Decoders decoders not None):
    """Register how the data of events are decoded (done by `penstock.events`)."""
    global _decoders
    _decoders = decoders


cdef class Decoders:
    """`Decoders(find, refusals, mark)`: how the data of events are decoded, by type and version.

    `find(type, version)` gives a function of bytes to an event, or None where there is no such plain way; what it gave is
    kept until `forget`. `refusals`: what the functions raise. Data that hold the bytes `mark` are not decoded like that.
    Thread safety: the GIL's.
    """

    cdef object find
    cdef tuple refusals
    cdef bytes mark
    cdef dict known
    cdef str last_type
    cdef int64_t last_version
    cdef object last

    def __init__(self, find not None, tuple refusals not None, bytes mark not None):
        self.find = find
        self.refusals = refusals
        self.mark = mark
        self.forget()

    def forget(self):
        """What was found may have changed."""
        self.known = {}
        self.last_type = self.last = None

    cdef object decoder(self, str type_, int64_t version):
        cdef dict known = self.known
        cdef object key, found
        if type_ is self.last_type and version == self.last_version:
            return self.last
        key = (type_, version)
        if key in known:
            found = known[key]
        else:
            found = known[key] = self.find(type_, version)
        if known is self.known:  # nobody forgot it meanwhile
            self.last_type, self.last_version, self.last = type_, version, found
        return found

    cpdef object decoded(self, StoredEvent event):
        """The event, or None when it cannot be decoded like that."""
        cdef object decode = self.decoder(event.type, event.schema_version)
        cdef bytes data
        if decode is None:
            return None
        data = _data_of(event.value)
        if data is None or memmem(
            PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), PyBytes_AS_STRING(self.mark), PyBytes_GET_SIZE(self.mark)
        ) != NULL:
            return None
        try:
            return decode(data)
        except self.refusals:
            return None  # what is wrong is told on the other way


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

    @property
    def event(self):
        """The typed event, migrated from an old version of its type. Raises `UnknownEventTypeError`, `InvalidEventError`,
        `LostKeyError`."""
        if self._event is None:
            self._event = _decoders.decoded(self)
            if self._event is None:
                self._event = self._event_of_envelope()
        return self._event

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


cdef bytes _tail = b""  # of the last envelope: what followed its data; many have the same


cdef bytes _data_of(bytes value):
    """The member `data` of an envelope's JSON as the store writes it; None where that takes a parser.

    Strings and nesting are respected, so that of valid JSON it is nothing else. What ends with a tail that followed the
    data of another envelope has it as its own: it begins behind a value, and closes what is open there.
    """
    global _tail
    cdef const char *end = PyBytes_AS_STRING(value) + PyBytes_GET_SIZE(value)
    cdef const char *start = _data_begin(PyBytes_AS_STRING(value), end)
    cdef const char *stop
    if start == NULL:
        return None
    stop = end - PyBytes_GET_SIZE(_tail)
    if PyBytes_GET_SIZE(_tail) == 0 or stop <= start or memcmp(stop, PyBytes_AS_STRING(_tail), end - stop) != 0:
        stop = _closing(start, end, 0)
        if stop == NULL or end - stop < 2 or stop[0] != b"," or stop[1] != b'"' or _closing(stop, end, 1) != end:
            return None
        _tail = stop[:end - stop]
    return PyBytes_FromStringAndSize(start, stop - start)


cdef const char *_data_begin(const char *p, const char *end) noexcept:
    """Behind `"data":` of an object whose members before that are strings without escaped quotes, and numbers."""
    cdef const char *key
    cdef const char *q
    if p == end or p[0] != b"{":
        return NULL
    while end - p > 2 and p[1] == b'"':
        key = p + 2
        q = <const char *>memchr(key, b'"', end - key)
        if q == NULL or end - q < 3 or (q - 1)[0] == b"\\" or q[1] != b":":
            return NULL
        p = q + 2
        if q - key == 4 and memcmp(key, b"data", 4) == 0:
            return p
        if p[0] == b'"':
            q = <const char *>memchr(p + 1, b'"', end - p - 1)
            if q == NULL or (q - 1)[0] == b"\\":
                return NULL
            p = q + 1
        elif p[0] == b"{" or p[0] == b"[":
            return NULL
        else:
            p = <const char *>memchr(p, b",", end - p)
        if p == NULL or p == end or p[0] != b",":
            return NULL
    return NULL


cdef const char *_closing(const char *p, const char *end, int64_t depth) noexcept:
    """Behind the end of the object that begins at `p`, or in which `p` is (`depth` 1); NULL when it does not end."""
    while p < end:
        if p[0] == b'"':
            p += 1
            while p < end and p[0] != b'"':
                p += 2 if p[0] == b"\\" else 1
        elif p[0] == b"{" or p[0] == b"[":
            depth += 1
        elif p[0] == b"}" or p[0] == b"]":
            depth -= 1
        p += 1
        if depth == 0:
            return p if p <= end and (p - 1)[0] == b"}" else NULL
    return NULL


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
        cdef int64_t i = 0, offset
        cdef record_fields r
        cdef event_fields e
        cdef int kind
        cdef bint is_whole = walker.count == walker.last_offset_delta + 1  # so that places and offsets are the same
        if is_whole and from_offset > walker.base_offset:
            i = min(from_offset - walker.base_offset, walker.count)
            p = _behind(p, i, walker)
        while i < walker.count:
            i += 1
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
                    if is_whole:  # the versions of a stream in a batch follow each other
                        offset = min(first - e.version - 1, walker.count - i)
                        p = _behind(p, offset, walker)
                        i += offset
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


cdef const char *_behind(const char *p, int64_t count, BatchWalker walker) except NULL:
    """Where the record after so many begins; their sizes are all that is read of them."""
    cdef const char *end = walker.payload_end
    cdef int64_t size, _
    for _ in range(count):
        p = varint_read(p, end, VARINT_MAX_BYTES, &size)
        if p == NULL or size < 0 or size > end - p:
            raise _broken(walker)
        p += size
    return p


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
