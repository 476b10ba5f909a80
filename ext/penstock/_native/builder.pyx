"""Encoding records into a Kafka RecordBatch v2, ready to be stored: the *sealed batch*.

Ownership: a builder owns its buffers and keeps them over `reset`. It exports (buffer protocol) the sealed batch until then.
Thread safety: one thread at a time.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX
    bint PyUnicode_IS_ASCII(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *size) except NULL

from libc.string cimport memcpy

from penstock._native.format cimport *

from fastcrc.crc32 import iscsi as _crc32c

from penstock.errors import InvalidArgumentError, InvalidTypeError, RecordTooLargeError

cdef enum:
    VARLONG_BYTES = 10
    BATCH_BYTES_MAX = 0x7FFFFFFF  # the length field is a signed 32-bit integer

cdef object _compress = None


def set_compressor(compress):
    """Register `compress(codec_id, data) -> bytes` (done by `penstock.storage.compression`)."""
    global _compress
    _compress = compress


def compressed(int codec, data):
    """`data` as the payload of a batch of that codec."""
    return _compress(codec, data)


cdef class Values:
    """Up to VALUES_MAX values that are encoded in one go: where they lie and how long they are."""

    cdef int64_t hold(self, list values, Py_ssize_t start, int64_t count) noexcept:
        """Keep `values[start:start + count]` alive without the GIL; how many are bytes, before one that is not."""
        cdef PyObject *item
        cdef int64_t i
        for i in range(count):
            item = <PyObject *>PyList_GET_ITEM(values, start + i)
            if not PyBytes_CheckExact(<object>item):
                return i
            Py_INCREF(<object>item)
            self.held[i] = item
            self.pointers[i] = PyBytes_AS_STRING(<object>item)
            self.lengths[i] = PyBytes_GET_SIZE(<object>item)
        return count

    cdef void release(self, int64_t count) noexcept:
        cdef int64_t i
        for i in range(count):
            Py_DECREF(<object>self.held[i])


cdef Values _spare = None


cdef Values _take_spare():
    global _spare
    cdef Values values = _spare
    _spare = None  # another thread makes its own
    return Values.__new__(Values) if values is None else values


cdef class BatchBuilder:
    """`BatchBuilder(capacity_bytes=16384)`: an empty batch; the buffer grows as needed."""

    def __cinit__(self, Py_ssize_t capacity_bytes=16384):
        self.capacity = max(capacity_bytes, 256)
        self.data = <char *>malloc(self.capacity)
        if self.data == NULL:
            raise MemoryError()
        self.reset_fast()

    def __dealloc__(self):
        free(self.data)
        free(self.packed)

    cdef void reset_fast(self) noexcept:
        self.size_bytes = BATCH_HEADER_BYTES
        self.count = 0
        self.base_timestamp_ms = self.max_timestamp_ms = -1
        self.sealed = NULL
        self.sealed_size = 0

    def reset(self):
        """Forget the records; the memory is kept."""
        self.reset_fast()

    cdef int reserve(self, Py_ssize_t more) noexcept nogil:
        cdef Py_ssize_t need = self.size_bytes + more
        cdef Py_ssize_t capacity = self.capacity
        cdef char *grown
        if need <= capacity:
            return 0
        while capacity < need:
            capacity += capacity
        grown = <char *>realloc(self.data, capacity)
        if grown == NULL:
            return -1
        self.data = grown
        self.capacity = capacity
        self.sealed = NULL  # it may have been in the memory that moved
        self.sealed_size = 0
        return 0

    cdef int append_raw(
        self, const char *value, Py_ssize_t value_length, const char *key, Py_ssize_t key_length,
        const char *headers, Py_ssize_t headers_size, int32_t header_count, int64_t timestamp_ms,
    ) noexcept nogil:
        cdef char *end
        if self.reserve(RECORD_OVERHEAD_MAX + (value_length if value_length > 0 else 0) + (key_length if key_length > 0 else 0) + headers_size):
            return -1
        if self.count == 0:
            self.base_timestamp_ms = self.max_timestamp_ms = timestamp_ms
        elif timestamp_ms > self.max_timestamp_ms:
            self.max_timestamp_ms = timestamp_ms
        end = record_write(
            self.data + self.size_bytes, timestamp_ms - self.base_timestamp_ms, self.count,
            key, key_length, value, value_length, headers, headers_size, header_count,
        )
        self.size_bytes = end - self.data
        self.count += 1
        return 0

    cdef char *begin_record(
        self, const char *key, Py_ssize_t key_length, Py_ssize_t value_length, Py_ssize_t headers_size, int32_t header_count,
        int64_t timestamp_ms,
    ) noexcept nogil:
        """Where the value of a new record goes; NULL without memory. The caller writes it, the count of headers as a varint
        and the headers, then calls `end_record`."""
        if self.reserve(RECORD_OVERHEAD_MAX + value_length + key_length + headers_size):
            return NULL
        if self.count == 0:
            self.base_timestamp_ms = self.max_timestamp_ms = timestamp_ms
        elif timestamp_ms > self.max_timestamp_ms:
            self.max_timestamp_ms = timestamp_ms
        return record_begin(
            self.data + self.size_bytes, timestamp_ms - self.base_timestamp_ms, self.count, key, key_length, value_length,
            headers_size, header_count,
        )

    cdef void end_record(self, const char *end) noexcept nogil:
        """The record that was begun ends here."""
        self.size_bytes = end - self.data
        self.count += 1

    def append(self, value, key, headers, int64_t timestamp_ms):
        """Add one record. `value`, `key`: bytes-like or None; `headers`: (str, bytes or None) pairs or None."""
        cdef Py_buffer value_view, key_view
        cdef bytes encoded = b""
        cdef int32_t header_count = 0
        cdef int rc
        if headers:
            encoded, header_count = encode_headers(headers)
        _view(value, &value_view, "value")
        try:
            _view(key, &key_view, "key")
            try:
                rc = self.append_raw(
                    <const char *>value_view.buf, value_view.len, <const char *>key_view.buf, key_view.len,
                    PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded), header_count, timestamp_ms,
                )
            finally:
                _release(key, &key_view)
        finally:
            _release(value, &value_view)
        if rc:
            raise MemoryError()

    def append_list(
        self, list values not None, Py_ssize_t start, int64_t timestamp_ms, Py_ssize_t limit_bytes, Py_ssize_t stop=PY_SSIZE_T_MAX,
    ):
        """Add `values[start:stop]` (bytes each) until `size_bytes` reaches `limit_bytes`; returns the next index."""
        cdef Py_ssize_t total
        cdef int64_t count, held, done = 0
        cdef Values some = _take_spare()
        global _spare
        if start < 0:
            raise InvalidArgumentError(f"start is {start}; allowed is 0 or more")
        while start < min(PyList_GET_SIZE(values), stop) and self.size_bytes < limit_bytes:
            total = min(PyList_GET_SIZE(values), stop)
            count = min(total - start, VALUES_MAX, (limit_bytes - self.size_bytes) // 64 + 1)
            held = some.hold(values, start, count)
            if held == count:
                with nogil:
                    done = self.write_values(some, count, timestamp_ms, limit_bytes)
            some.release(held)
            if held < count:
                raise InvalidTypeError(f"values[{start + held}] is {type(values[start + held]).__name__}; bytes are needed")
            if done < 0:
                raise MemoryError()
            start += done
        _spare = some
        return start

    cdef int64_t write_values(self, Values values, int64_t count, int64_t timestamp_ms, Py_ssize_t limit_bytes) noexcept nogil:
        """Encode until `limit_bytes`; how many, or -1 without memory."""
        cdef Py_ssize_t room = count * RECORD_OVERHEAD_MAX
        cdef int64_t i
        for i in range(count):
            room += values.lengths[i]
        if count == 0:
            return 0
        if self.reserve(room):
            return -1
        if self.count == 0:
            self.base_timestamp_ms = self.max_timestamp_ms = timestamp_ms
        elif timestamp_ms > self.max_timestamp_ms:
            self.max_timestamp_ms = timestamp_ms
        self.size_bytes = values_write(
            self.data + self.size_bytes, self.data + limit_bytes, timestamp_ms - self.base_timestamp_ms, self.count,
            values.pointers, values.lengths, &count,
        ) - self.data
        self.count += <int32_t>count
        return count

    def append_fixed(self, buffer, Py_ssize_t width, Py_ssize_t start, Py_ssize_t stop, int64_t timestamp_ms, Py_ssize_t limit_bytes):
        """Add the items `start` to `stop` of `width` bytes each, until `limit_bytes`; returns the next index."""
        cdef Py_buffer view
        cdef int64_t done = 0, i, count
        cdef Values some = _take_spare()
        global _spare
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            if width < 0 or start < 0 or (width and stop > view.len // width):
                raise InvalidArgumentError(f"items {start} to {stop} of {width} bytes are not in a buffer of {view.len} bytes")
            with nogil:
                while start < stop and self.size_bytes < limit_bytes:
                    count = min(stop - start, VALUES_MAX, (limit_bytes - self.size_bytes) // (width + 8) + 1)
                    for i in range(count):
                        some.pointers[i] = <const char *>view.buf + (start + i) * width
                        some.lengths[i] = width
                    done = self.write_values(some, count, timestamp_ms, limit_bytes)
                    if done < 0:
                        break
                    start += done
        finally:
            PyBuffer_Release(&view)
        _spare = some
        if done < 0:
            raise MemoryError()
        return start

    def append_ranges(self, buffer, const int64_t[::1] offsets, Py_ssize_t start, Py_ssize_t stop, int64_t timestamp_ms, Py_ssize_t limit_bytes):
        """Add `buffer[offsets[i]:offsets[i + 1]]` for i from `start` to `stop`, until `limit_bytes`; returns the next index."""
        cdef Py_buffer view
        cdef int64_t done = 0, i, count, begin = 0, end = 0, bad = -1
        cdef Values some = _take_spare()
        global _spare
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            if start < 0 or stop >= offsets.shape[0]:
                raise InvalidArgumentError(f"ranges {start} to {stop} need {stop + 1} offsets; there are {offsets.shape[0]}")
            with nogil:
                while start < stop and self.size_bytes < limit_bytes and bad < 0:
                    count = min(stop - start, VALUES_MAX, (limit_bytes - self.size_bytes) // 64 + 1)
                    for i in range(count):
                        begin = offsets[start + i]
                        end = offsets[start + i + 1]
                        if begin < 0 or end < begin or end > view.len:
                            bad = start + i
                            count = i
                            break
                        some.pointers[i] = <const char *>view.buf + begin
                        some.lengths[i] = end - begin
                    done = self.write_values(some, count, timestamp_ms, limit_bytes)
                    if done < 0:
                        break
                    start += done
        finally:
            PyBuffer_Release(&view)
        _spare = some
        if done < 0:
            raise MemoryError()
        if bad == start:
            raise InvalidArgumentError(f"offsets[{bad}] to offsets[{bad + 1}] is {begin} to {end}; the buffer has {view.len} bytes")
        return start

    cpdef seal(self, int codec=0, bint log_append_time=False, int64_t producer_id=-1, int producer_epoch=-1, int base_sequence=-1, int attributes=0):
        """Compress, write header and CRC. From now on the object exports the sealed batch. `attributes`: more bits of them."""
        cdef Py_ssize_t payload = self.size_bytes - BATCH_HEADER_BYTES
        cdef char *out = self.data
        cdef const char *source
        cdef bytes packed
        if self.count == 0:
            raise InvalidArgumentError("an empty batch cannot be stored: it has 0 records, 1 or more are needed")
        if payload > BATCH_BYTES_MAX - BATCH_HEADER_BYTES:
            raise RecordTooLargeError(f"the batch has {self.size_bytes} bytes; at most {BATCH_BYTES_MAX} are allowed")
        if codec:
            if _compress is None:
                raise InvalidArgumentError(f"codec is {codec}; no compressor is registered")
            packed = _compress(codec, _Window.over(self, self.data + BATCH_HEADER_BYTES, payload))
            payload = PyBytes_GET_SIZE(packed)
            if self.packed_capacity < payload + BATCH_HEADER_BYTES:
                free(self.packed)
                self.packed_capacity = 0
                self.packed = <char *>malloc(payload + BATCH_HEADER_BYTES)
                if self.packed == NULL:
                    raise MemoryError()
                self.packed_capacity = payload + BATCH_HEADER_BYTES
            out = self.packed
            source = PyBytes_AS_STRING(packed)
            memcpy(out + BATCH_HEADER_BYTES, source, payload)
        store_be64(out, 0)
        store_be32(out + BATCH_LENGTH, <uint32_t>(payload + BATCH_HEADER_BYTES - BATCH_LOG_OVERHEAD))
        store_be32(out + BATCH_LEADER_EPOCH, 0)
        out[BATCH_MAGIC] = MAGIC_V2
        store_be16(out + BATCH_ATTRIBUTES, <uint16_t>(codec | attributes | (ATTRIBUTE_LOG_APPEND_TIME if log_append_time else 0)))
        store_be32(out + BATCH_LAST_OFFSET_DELTA, <uint32_t>(self.count - 1))
        store_be64(out + BATCH_BASE_TIMESTAMP, <uint64_t>self.base_timestamp_ms)
        store_be64(out + BATCH_MAX_TIMESTAMP, <uint64_t>self.max_timestamp_ms)
        store_be64(out + BATCH_PRODUCER_ID, <uint64_t>producer_id)
        store_be16(out + BATCH_PRODUCER_EPOCH, <uint16_t>producer_epoch)
        store_be32(out + BATCH_BASE_SEQUENCE, <uint32_t>base_sequence)
        store_be32(out + BATCH_COUNT, <uint32_t>self.count)
        self.sealed = out
        self.sealed_size = payload + BATCH_HEADER_BYTES
        self.write_crc()

    def set_log_append_time(self, int64_t timestamp_ms):
        """Stamp the sealed batch with the time at which it is stored (LogAppendTime)."""
        cdef char *out = <char *>self.sealed
        if out == NULL:
            raise InvalidArgumentError("the batch is not sealed")
        store_be16(out + BATCH_ATTRIBUTES, load_be16(out + BATCH_ATTRIBUTES) | ATTRIBUTE_LOG_APPEND_TIME)
        store_be64(out + BATCH_MAX_TIMESTAMP, <uint64_t>timestamp_ms)
        self.max_timestamp_ms = timestamp_ms
        self.write_crc()

    cdef int write_crc(self) except -1:
        cdef uint32_t crc
        self.shown = self.sealed + BATCH_ATTRIBUTES
        self.shown_size = self.sealed_size - BATCH_ATTRIBUTES
        try:
            crc = _crc32c(self)
        finally:
            self.shown = NULL
        store_be32(<char *>self.sealed + BATCH_CRC, crc)
        return 0

    def __len__(self):
        return self.sealed_size

    def __getbuffer__(self, Py_buffer *view, int flags):
        if self.shown != NULL:
            PyBuffer_FillInfo(view, self, <void *>self.shown, self.shown_size, 1, flags)
        elif self.sealed != NULL:
            PyBuffer_FillInfo(view, self, <void *>self.sealed, self.sealed_size, 1, flags)
        else:
            raise BufferError("the batch is not sealed")

    def __releasebuffer__(self, Py_buffer *view):
        pass


cdef class _Window:
    """A read-only view of part of a builder, for the compressor."""
    cdef object owner
    cdef const char *data
    cdef Py_ssize_t size

    @staticmethod
    cdef _Window over(object owner, const char *data, Py_ssize_t size):
        cdef _Window window = _Window.__new__(_Window)
        window.owner = owner
        window.data = data
        window.size = size
        return window

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, <void *>self.data, self.size, 1, flags)

    def __releasebuffer__(self, Py_buffer *view):
        pass


cdef int _view(object item, Py_buffer *view, str name) except -1:
    if item is None:
        view.buf = NULL
        view.len = -1
        return 0
    if isinstance(item, str):
        raise InvalidTypeError(f"{name} is str; bytes are needed: encode it first, for example with .encode()")
    try:
        PyObject_GetBuffer(item, view, PyBUF_SIMPLE)
    except (TypeError, BufferError):
        raise InvalidTypeError(f"{name} is {type(item).__name__}; contiguous bytes or None are needed") from None
    return 0


cdef void _release(object item, Py_buffer *view) noexcept:
    if item is not None:
        PyBuffer_Release(view)


cdef class EncodedHeaders:
    """Header pairs, checked and encoded once for many records."""

    def __init__(self, headers not None):
        self.pairs = list(headers)
        self.data, self.count = encode_headers(self.pairs)

    def __len__(self):
        return self.count


cdef bytes _encode_plain(list pairs):
    """(str, bytes) tuples, encoded in one go; None when they are not all of that kind: the slow path says what is wrong."""
    cdef Py_ssize_t size = 0, name_size
    cdef const char *name
    cdef char *p
    cdef bytes out
    cdef object pair
    for pair in pairs:
        if type(pair) is not tuple or len(<tuple>pair) != 2:
            return None
        if type((<tuple>pair)[0]) is not str or type((<tuple>pair)[1]) is not bytes:
            return None
        if not PyUnicode_IS_ASCII((<tuple>pair)[0]):
            return None
        size += PyUnicode_GET_LENGTH((<tuple>pair)[0]) + PyBytes_GET_SIZE((<tuple>pair)[1]) + 2 * VARLONG_BYTES
    out = PyBytes_FromStringAndSize(NULL, size)
    p = PyBytes_AS_STRING(out)
    for pair in pairs:
        name = PyUnicode_AsUTF8AndSize((<tuple>pair)[0], &name_size)
        p = varint_write(p, name_size)
        memcpy(p, name, name_size)
        p += name_size
        size = PyBytes_GET_SIZE((<tuple>pair)[1])
        p = varint_write(p, size)
        memcpy(p, PyBytes_AS_STRING((<tuple>pair)[1]), size)
        p += size
    return out[:p - PyBytes_AS_STRING(out)]


def encode_headers(headers):
    """(encoded bytes, count) of header pairs, or `InvalidTypeError` naming the header that is wrong."""
    cdef char scratch[16]
    cdef char *end
    if type(headers) is EncodedHeaders:
        return (<EncodedHeaders>headers).data, (<EncodedHeaders>headers).count
    if type(headers) is list:
        encoded = _encode_plain(headers)
        if encoded is not None:
            return encoded, len(headers)
    parts = []
    count = 0
    if isinstance(headers, (str, bytes, bytearray)):
        raise InvalidTypeError(f"headers is {type(headers).__name__}; a list of (str, bytes or None) pairs is needed")
    try:
        pairs = list(headers.items()) if isinstance(headers, dict) else list(headers)
    except TypeError:
        raise InvalidTypeError(f"headers is {type(headers).__name__}; a list of (str, bytes or None) pairs is needed") from None
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[0], str):
            raise InvalidTypeError(f"headers[{count}] is {pair!r}; a (str, bytes or None) pair is needed")
        name, value = pair
        if value is not None and not isinstance(value, (bytes, bytearray, memoryview)):
            raise InvalidTypeError(f"headers[{count}] ({name!r}) has a value of type {type(value).__name__}; bytes or None are needed")
        try:
            raw = name.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(f"headers[{count}] has the name {name!r}; valid Unicode is needed") from error
        if value is not None:
            value = bytes(value)
        end = varint_write(scratch, len(raw))
        parts.append(scratch[:end - scratch])
        parts.append(raw)
        end = varint_write(scratch, -1 if value is None else len(value))
        parts.append(scratch[:end - scratch])
        if value is not None:
            parts.append(value)
        count += 1
    return b"".join(parts), count
