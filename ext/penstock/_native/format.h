/* Kafka's RecordBatch v2 and index entries: every constant of the format on disk, and how its integers are read and
 * written. Everything is big-endian; varints are zig-zag, seven bits a byte, least significant first.
 *
 * Batch: base offset 8, length 4, partition leader epoch 4, magic 1, CRC-32C 4 (of all that follows), attributes 2,
 * last offset delta 4, base timestamp 8, max timestamp 8, producer id 8, producer epoch 2, base sequence 4, count 4,
 * records. Record: length, attributes 1, timestamp delta, offset delta, key length, key, value length, value, header
 * count, (key length, key, value length, value)*; lengths of null are -1. */
#ifndef PENSTOCK_FORMAT_H
#define PENSTOCK_FORMAT_H

#include <stdint.h>
#include <string.h>

/* The compiler's own limit is reached where a parser is used from several places: half the speed of reading. */
#define INLINE static inline __attribute__((always_inline))

#define BATCH_BASE_OFFSET 0
#define BATCH_LENGTH 8
#define BATCH_LEADER_EPOCH 12
#define BATCH_MAGIC 16
#define BATCH_CRC 17
#define BATCH_ATTRIBUTES 21
#define BATCH_LAST_OFFSET_DELTA 23
#define BATCH_BASE_TIMESTAMP 27
#define BATCH_MAX_TIMESTAMP 35
#define BATCH_PRODUCER_ID 43
#define BATCH_PRODUCER_EPOCH 51
#define BATCH_BASE_SEQUENCE 53
#define BATCH_COUNT 57
#define BATCH_HEADER_BYTES 61
#define BATCH_LOG_OVERHEAD 12 /* bytes that the length field does not count */
#define MAGIC_V2 2

#define ATTRIBUTE_CODEC_MASK 0x07
#define ATTRIBUTE_LOG_APPEND_TIME 0x08
#define ATTRIBUTE_TRANSACTIONAL 0x10
#define ATTRIBUTE_CONTROL 0x20

#define INDEX_ENTRY_BYTES 8       /* offset - base offset 4, position 4 */
#define TIME_INDEX_ENTRY_BYTES 12 /* timestamp 8, offset - base offset 4 */
#define INDEX_INTERVAL_BYTES 4096

#define VARINT_MAX_BYTES 5
#define VARLONG_MAX_BYTES 10
/* A record without its key, value and headers never takes more: length 5, attributes 1, timestamp 10, offset 5,
 * three counts of 5. */
#define RECORD_OVERHEAD_MAX 36
#define RECORD_BYTES_MIN 7 /* a record of nulls: seven fields of one byte */

static inline uint16_t load_be16(const void *p) { uint16_t v; memcpy(&v, p, 2); return __builtin_bswap16(v); }
static inline uint32_t load_be32(const void *p) { uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
static inline uint64_t load_be64(const void *p) { uint64_t v; memcpy(&v, p, 8); return __builtin_bswap64(v); }
static inline void store_be16(void *p, uint16_t v) { v = __builtin_bswap16(v); memcpy(p, &v, 2); }
static inline void store_be32(void *p, uint32_t v) { v = __builtin_bswap32(v); memcpy(p, &v, 4); }
static inline void store_be64(void *p, uint64_t v) { v = __builtin_bswap64(v); memcpy(p, &v, 8); }

static inline uint64_t zigzag(int64_t v) { return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63); }

static inline int varint_size(int64_t value) {
    uint64_t v = zigzag(value);
    int size = 1;
    if (v < 0x80) return 1;
    if (v < 0x4000) return 2;
    while (v >= 0x80) { v >>= 7; size++; }
    return size;
}

static inline char *varint_write(char *p, int64_t value) {
    uint64_t v = zigzag(value);
    if (v < 0x80) { *p = (char)v; return p + 1; }
    if (v < 0x4000) { p[0] = (char)(v | 0x80); p[1] = (char)(v >> 7); return p + 2; }
    while (v >= 0x80) { *p++ = (char)(v | 0x80); v >>= 7; }
    *p++ = (char)v;
    return p;
}

/* The position after the varint, or NULL when it is longer than `most` bytes or runs past `end`. */
INLINE const char *varint_read(const char *p, const char *end, int most, int64_t *value) {
    uint64_t v = 0;
    int shift = 0;
    if (p < end && (unsigned char)*p < 0x80) { /* most lengths and deltas take one byte */
        v = (unsigned char)*p;
        *value = (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
        return p + 1;
    }
    if (end - p >= 2 && (unsigned char)p[1] < 0x80) { /* and the others two */
        v = (uint64_t)((unsigned char)p[0] & 0x7f) | (uint64_t)(unsigned char)p[1] << 7;
        *value = (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
        return p + 2;
    }
    while (p < end && most-- > 0) {
        unsigned char byte = (unsigned char)*p++;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *value = (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
            return p;
        }
        shift += 7;
    }
    return NULL;
}

/* One record's fields, as they lie in a buffer. Lengths of null are -1. */
typedef struct {
    int64_t timestamp_delta, offset_delta, key_length, value_length, header_count;
    const char *key, *value, *headers, *end;
} record_fields;

/* Parses the record at `p`. The position after it, or NULL when anything in it contradicts its size or `end`. */
INLINE const char *record_read(const char *p, const char *end, record_fields *r) {
    int64_t size;
    p = varint_read(p, end, VARINT_MAX_BYTES, &size);
    if (!p || size < 1 || size > end - p) return NULL;
    end = p + size;
    p++; /* attributes: unused */
    if (!(p = varint_read(p, end, VARLONG_MAX_BYTES, &r->timestamp_delta))) return NULL;
    if (!(p = varint_read(p, end, VARINT_MAX_BYTES, &r->offset_delta))) return NULL;
    if (!(p = varint_read(p, end, VARINT_MAX_BYTES, &r->key_length))) return NULL;
    if (r->key_length < -1 || r->key_length > end - p) return NULL;
    r->key = p;
    if (r->key_length > 0) p += r->key_length;
    if (!(p = varint_read(p, end, VARINT_MAX_BYTES, &r->value_length))) return NULL;
    if (r->value_length < -1 || r->value_length > end - p) return NULL;
    r->value = p;
    if (r->value_length > 0) p += r->value_length;
    if (!(p = varint_read(p, end, VARINT_MAX_BYTES, &r->header_count))) return NULL;
    if (r->header_count < 0 || r->header_count > end - p) return NULL;
    if (r->header_count == 0 && p != end) return NULL;
    r->headers = p;
    r->end = end;
    return end;
}

/* Writes a record up to where its value begins; the value, the count of headers and the headers have to follow. */
static inline char *record_begin(char *p, int64_t timestamp_delta, int32_t offset_delta, const char *key,
                                 int64_t key_length, int64_t value_length, int64_t headers_size,
                                 int32_t header_count) {
    int64_t size = 1 + varint_size(timestamp_delta) + varint_size(offset_delta) + varint_size(key_length) +
                   varint_size(value_length) + varint_size(header_count) + headers_size;
    if (key_length > 0) size += key_length;
    if (value_length > 0) size += value_length;
    p = varint_write(p, size);
    *p++ = 0;
    p = varint_write(p, timestamp_delta);
    p = varint_write(p, offset_delta);
    p = varint_write(p, key_length);
    if (key_length > 0) { memcpy(p, key, key_length); p += key_length; }
    return varint_write(p, value_length);
}

/* Writes a record; `p` has room for RECORD_OVERHEAD_MAX + key + value + headers. Headers are already encoded. */
static inline char *record_write(char *p, int64_t timestamp_delta, int32_t offset_delta, const char *key,
                                 int64_t key_length, const char *value, int64_t value_length, const char *headers,
                                 int64_t headers_size, int32_t header_count) {
    p = record_begin(p, timestamp_delta, offset_delta, key, key_length, value_length, headers_size, header_count);
    if (value_length > 0) { memcpy(p, value, value_length); p += value_length; }
    p = varint_write(p, header_count);
    if (headers_size) { memcpy(p, headers, headers_size); p += headers_size; }
    return p;
}

static inline void prefetch_object(const void *p) {
    __builtin_prefetch(p);
    __builtin_prefetch((const char *)p + 64);
    __builtin_prefetch((const char *)p + 128);
}

#endif
