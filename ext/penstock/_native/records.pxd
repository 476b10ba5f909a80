from libc.stdint cimport int64_t

from penstock._native.format cimport record_fields, record_shape
from penstock._native.region cimport Region


cdef class Source:
    cdef readonly str topic
    cdef readonly int partition


cdef class Record:
    cdef Source source
    cdef readonly int64_t offset
    cdef readonly int64_t timestamp_ms
    cdef readonly object key
    cdef readonly object value
    cdef tuple pairs


cdef class RecordMetadata:
    cdef Source source
    cdef readonly int64_t offset
    cdef readonly int64_t timestamp_ms


cdef RecordMetadata make_metadata(Source source, int64_t offset, int64_t timestamp_ms)


cdef class BatchWalker:
    cdef readonly Region region
    cdef readonly Py_ssize_t limit_bytes
    cdef const char *next_batch
    cdef const char *end
    cdef const char *batch
    cdef readonly object payload_owner
    cdef const char *payload
    cdef const char *payload_end
    cdef int64_t least_offset
    cdef readonly int64_t base_offset
    cdef readonly int64_t base_timestamp
    cdef readonly int64_t max_timestamp
    cdef readonly int64_t count
    cdef readonly int64_t last_offset_delta
    cdef readonly bint log_append_time
    cdef readonly bint control
    cdef readonly bint hidden  # not for the reader: control, or of an aborted transaction
    cdef public object aborted  # an `AbortedTransactions`, or None
    cdef readonly int codec
    cdef int advance(self) except -1
    cdef _unpack(self, const char *p, int64_t size)
    cdef object corrupt(self, str message, expected, got)


cdef class RecordCursor:
    cdef readonly Source source
    cdef BatchWalker walker
    cdef const char *next_byte
    cdef record_shape shape  # of the batch's records
    cdef int64_t left
    cdef int64_t opened  # records of the batches opened so far, less those passed over
    cdef int64_t from_offset
    cdef readonly int64_t next_offset
    cdef public Py_ssize_t decompressed_limit_bytes
    cdef public object aborted
    cdef object _advance(self)
    cdef tuple _headers(self, record_fields *fields)
    cdef object _broken(self, int64_t number)
    cdef int _open_batch(self) except -1
    cpdef next_record(self)
    cpdef Py_ssize_t take(self, list out, Py_ssize_t max_records) except -1
