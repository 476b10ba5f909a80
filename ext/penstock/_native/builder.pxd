from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t


cdef enum:
    VALUES_MAX = 256


cdef class Values:
    cdef PyObject *held[VALUES_MAX]
    cdef const char *pointers[VALUES_MAX]
    cdef int64_t lengths[VALUES_MAX]
    cdef int64_t hold(self, list values, Py_ssize_t start, int64_t count) noexcept
    cdef void release(self, int64_t count) noexcept


cdef class EncodedHeaders:
    cdef readonly list pairs
    cdef bytes data
    cdef int32_t count


cdef class BatchBuilder:
    cdef char *data
    cdef Py_ssize_t capacity
    cdef char *packed
    cdef Py_ssize_t packed_capacity
    cdef const char *sealed
    cdef Py_ssize_t sealed_size
    cdef const char *shown
    cdef Py_ssize_t shown_size
    cdef readonly Py_ssize_t size_bytes
    cdef readonly int32_t count
    cdef readonly int64_t base_timestamp_ms
    cdef readonly int64_t max_timestamp_ms
    cdef int reserve(self, Py_ssize_t more) noexcept nogil
    cdef int append_raw(
        self, const char *value, Py_ssize_t value_length, const char *key, Py_ssize_t key_length,
        const char *headers, Py_ssize_t headers_size, int32_t header_count, int64_t timestamp_ms,
    ) noexcept nogil
    cdef char *begin_record(
        self, const char *key, Py_ssize_t key_length, Py_ssize_t value_length, Py_ssize_t headers_size, int32_t header_count,
        int64_t timestamp_ms,
    ) noexcept nogil
    cdef void end_record(self, const char *end) noexcept nogil
    cdef int64_t write_values(self, Values values, int64_t count, int64_t timestamp_ms, Py_ssize_t limit_bytes) noexcept nogil
    cpdef seal(
        self, int codec=*, bint log_append_time=*, int64_t producer_id=*, int producer_epoch=*, int base_sequence=*, int attributes=*,
    )
    cdef int write_crc(self) except -1
    cdef void reset_fast(self) noexcept
