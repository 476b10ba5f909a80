"""Events into records: puts together the JSON of envelopes, byte for byte as `Envelope.to_json` gives it, and encodes it
with key and headers into a batch.

What is the same for a batch or a class is encoded once, by the caller; the data of all events come as one buffer of lines.
Thread safety: a `Template` is immutable; a builder is one thread's at a time.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyTypeObject
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memchr, memcpy

from penstock._native.builder cimport BatchBuilder
from penstock._native.format cimport varint_write

cdef extern from "Python.h":
    PyTypeObject *Py_TYPE(object)

from penstock.errors import InvalidArgumentError

cdef enum:
    ID_BYTES = 36
    NUMBER_BYTES = 20

cdef bytes _OPENING = b'{"messageId":"'
cdef const char *_version = b"\x0eversion"  # the length is a zigzag varint

cdef char _hex[512]


cdef void _fill_hex() noexcept:
    cdef int i
    cdef const char *digits = "0123456789abcdef"
    for i in range(256):
        _hex[2 * i] = digits[i >> 4]
        _hex[2 * i + 1] = digits[i & 15]


_fill_hex()


cdef inline void _byte(char *p, uint64_t value) noexcept nogil:
    memcpy(p, _hex + 2 * (value & 0xFF), 2)


cdef inline void write_uuid7(char *p, uint64_t stamp, uint64_t noise) noexcept nogil:
    """UUID version 7: 48 bits of milliseconds and the 12-bit counter of `stamp`, then 62 bits of `noise`."""
    cdef uint64_t high = (stamp >> 12 << 16) | 0x7000 | (stamp & 0xFFF)
    cdef uint64_t low = 0x8000000000000000ull | (noise >> 2)
    _byte(p, high >> 56)
    _byte(p + 2, high >> 48)
    _byte(p + 4, high >> 40)
    _byte(p + 6, high >> 32)
    p[8] = b"-"
    _byte(p + 9, high >> 24)
    _byte(p + 11, high >> 16)
    p[13] = b"-"
    _byte(p + 14, high >> 8)
    _byte(p + 16, high)
    p[18] = b"-"
    _byte(p + 19, low >> 56)
    _byte(p + 21, low >> 48)
    p[23] = b"-"
    _byte(p + 24, low >> 40)
    _byte(p + 26, low >> 32)
    _byte(p + 28, low >> 24)
    _byte(p + 30, low >> 16)
    _byte(p + 32, low >> 8)
    _byte(p + 34, low)


cdef inline uint64_t _noise(uint64_t seed, uint64_t number) noexcept nogil:
    """The number of a sequence that looks random (a counter, mixed)."""
    cdef uint64_t h = seed + (number + 1) * 0x9e3779b97f4a7c15ull
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ull
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebull
    return h ^ (h >> 31)


cdef inline char *_put(char *p, bytes part) noexcept:
    memcpy(p, PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part))
    return p + PyBytes_GET_SIZE(part)


cdef inline int _digits(int64_t number) noexcept nogil:
    cdef int count = 1
    while number >= 10:
        number //= 10
        count += 1
    return count


cdef inline char *_put_version(char *p, int64_t version, int digits) noexcept nogil:
    """The header `version` with the decimal digits."""
    cdef int place
    memcpy(p, _version, 8)
    p[8] = <char>(2 * digits)  # zigzag
    for place in range(8 + digits, 8, -1):
        p[place] = <char>(48 + version % 10)
        version //= 10
    return p + 9 + digits


cdef class Kind:
    """What the envelopes of one class of events have in common: `head`, from behind the message id up to the timestamp,
    and the encoded headers that follow `version`."""

    cdef readonly bytes head
    cdef readonly bytes headers

    def __init__(self, bytes head not None, bytes headers not None):
        self.head = head
        self.headers = headers


cdef class Template:
    """What the envelopes of one append have in common.

    `middle`: from the timestamp up to (but not with, if `own_correlation`) the correlation id; `before_data`: up to the
    data; `tail`: what follows them. `own_correlation`: the correlation id is the message id.
    """

    cdef bytes middle
    cdef bytes before_data
    cdef bytes tail
    cdef bint own_correlation

    def __init__(self, bytes middle not None, bytes before_data not None, bytes tail not None, bint own_correlation):
        self.middle = middle
        self.before_data = before_data
        self.tail = tail
        self.own_correlation = own_correlation


def append_events(
    BatchBuilder builder not None, bytes key not None, list events not None, data, dict kinds not None, Template template not None,
    uint64_t stamp, uint64_t seed, int64_t version, int64_t timestamp_ms, tags, bytes common_tags not None, int common_tag_count,
):
    """Add a record for each of `events` to the batch. True; False, and the batch as before, when `data` are not one line each.

    `data`: the JSON of all their data, each ended by a newline; or a list of bytes. `kinds`: `Kind` by class. `stamp`: the
    first message id's milliseconds << 12 | counter, the others count up; `seed`: random, for the rest of the ids. `version`:
    the first one's in its stream. `tags`: None, or for each event (encoded headers, count), else `common_tags` and their count.
    """
    cdef Py_ssize_t count = PyList_GET_SIZE(events), i, size
    cdef Py_ssize_t size_before = builder.size_bytes
    cdef int32_t count_before = builder.count
    cdef const char *p
    cdef const char *end
    cdef const char *line
    cdef list parts = data if type(data) is list else None
    cdef PyTypeObject *last = NULL
    cdef Kind kind = None
    if parts is None:
        p = PyBytes_AS_STRING(<bytes?>data)
        end = p + PyBytes_GET_SIZE(data)
    elif PyList_GET_SIZE(parts) != count:
        raise InvalidArgumentError(f"data has {len(parts)} items; there are {count} events")
    for i in range(count):
        if Py_TYPE(<object>PyList_GET_ITEM(events, i)) != last:
            last = Py_TYPE(<object>PyList_GET_ITEM(events, i))
            kind = <Kind?>kinds[<object>last]
        if parts is None:
            line = p
            p = <const char *>memchr(line, 10, end - line)
            if p == NULL:
                break
            size = p - line
            p += 1
        else:
            line = PyBytes_AS_STRING(<bytes?>parts[i])
            size = PyBytes_GET_SIZE(<bytes>parts[i])
        if tags is not None:
            common_tags, common_tag_count = tags[i]
        _append_one(
            builder, key, kind, template, line, size, stamp + i, _noise(seed, i), version + i, timestamp_ms, common_tags, common_tag_count
        )
    if parts is not None or p == end:
        return True
    builder.size_bytes, builder.count = size_before, count_before
    return False


cdef int _append_one(
    BatchBuilder builder, bytes key, Kind kind, Template template, const char *data, Py_ssize_t data_size, uint64_t stamp,
    uint64_t noise, int64_t version, int64_t timestamp_ms, bytes tags, int tag_count,
) except -1:
    cdef int digits = _digits(version)
    cdef Py_ssize_t value_size = (
        PyBytes_GET_SIZE(_OPENING) + ID_BYTES + PyBytes_GET_SIZE(kind.head) + PyBytes_GET_SIZE(template.middle)
        + (ID_BYTES if template.own_correlation else 0) + PyBytes_GET_SIZE(template.before_data) + data_size
        + PyBytes_GET_SIZE(template.tail)
    )
    cdef char *id_place
    cdef char *p = builder.begin_record(
        PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), value_size,
        9 + digits + PyBytes_GET_SIZE(kind.headers) + PyBytes_GET_SIZE(tags), 3 + tag_count, timestamp_ms,
    )
    if p == NULL:
        raise MemoryError()
    id_place = p = _put(p, _OPENING)
    write_uuid7(p, stamp, noise)
    p = _put(p + ID_BYTES, kind.head)
    p = _put(p, template.middle)
    if template.own_correlation:
        memcpy(p, id_place, ID_BYTES)
        p += ID_BYTES
    p = _put(p, template.before_data)
    memcpy(p, data, data_size)
    p = _put(p + data_size, template.tail)
    p = _put_version(varint_write(p, 3 + tag_count), version, digits)
    p = _put(p, kind.headers)
    builder.end_record(_put(p, tags))
    return 0


def append_envelope(
    BatchBuilder builder not None, bytes key not None, bytes value not None, int64_t version, bytes headers not None, int header_count,
    int64_t timestamp_ms,
):
    """Add the record of an envelope that is encoded already; `headers`: those that follow `version`, encoded."""
    cdef bytes all_headers
    cdef char start[9 + NUMBER_BYTES]
    cdef char *end = _put_version(start, version, _digits(version))
    all_headers = start[:end - start] + headers
    if builder.append_raw(
        PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key),
        PyBytes_AS_STRING(all_headers), PyBytes_GET_SIZE(all_headers), 1 + header_count, timestamp_ms,
    ):
        raise MemoryError()
