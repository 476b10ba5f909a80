from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t


cdef extern from "format.h" nogil:
    enum:
        BATCH_BASE_OFFSET
        BATCH_LENGTH
        BATCH_LEADER_EPOCH
        BATCH_MAGIC
        BATCH_CRC
        BATCH_ATTRIBUTES
        BATCH_LAST_OFFSET_DELTA
        BATCH_BASE_TIMESTAMP
        BATCH_MAX_TIMESTAMP
        BATCH_PRODUCER_ID
        BATCH_PRODUCER_EPOCH
        BATCH_BASE_SEQUENCE
        BATCH_COUNT
        BATCH_HEADER_BYTES
        BATCH_LOG_OVERHEAD
        MAGIC_V2
        ATTRIBUTE_CODEC_MASK
        ATTRIBUTE_LOG_APPEND_TIME
        ATTRIBUTE_TRANSACTIONAL
        ATTRIBUTE_CONTROL
        INDEX_ENTRY_BYTES
        TIME_INDEX_ENTRY_BYTES
        INDEX_INTERVAL_BYTES
        VARINT_MAX_BYTES
        RECORD_OVERHEAD_MAX
        RECORD_BYTES_MIN

    ctypedef struct record_fields:
        int64_t timestamp_delta
        int64_t offset_delta
        int64_t key_length
        int64_t value_length
        int64_t header_count
        const char *key
        const char *value
        const char *headers
        const char *end

    uint16_t load_be16(const void *p)
    uint32_t load_be32(const void *p)
    uint64_t load_be64(const void *p)
    void store_be16(void *p, uint16_t v)
    void store_be32(void *p, uint32_t v)
    void store_be64(void *p, uint64_t v)
    int varint_size(int64_t value)
    char *varint_write(char *p, int64_t value)
    const char *varint_read(const char *p, const char *end, int most, int64_t *value)
    const char *record_read(const char *p, const char *end, record_fields *r)
    char *record_begin(
        char *p, int64_t timestamp_delta, int32_t offset_delta, const char *key, int64_t key_length, int64_t value_length,
        int64_t headers_size, int32_t header_count,
    )
    char *record_write(
        char *p, int64_t timestamp_delta, int32_t offset_delta, const char *key, int64_t key_length, const char *value,
        int64_t value_length, const char *headers, int64_t headers_size, int32_t header_count,
    )
    void prefetch_object(const void *p)


cdef extern from "record_runs.h" nogil:
    ctypedef struct record_shape:
        record_fields r

    const char *record_follow(const char *p, const char *end, record_shape *shape)
    char *values_write(
        char *p, const char *limit, int64_t timestamp_delta, int32_t offset_delta, const char **values,
        const int64_t *lengths, int64_t *count,
    )
