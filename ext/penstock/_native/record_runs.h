/* Runs of records of one shape, read and written without taking each apart.
 *
 * Neighbours in a batch are mostly alike: of the bytes before the key only the offset delta differs, by one, which is two
 * in zig-zag, and adds up within its first byte for up to 63 records. So the bytes to come are known. What is not as
 * expected is parsed or written field by field, and becomes the next shape. */
#ifndef PENSTOCK_RECORD_RUNS_H
#define PENSTOCK_RECORD_RUNS_H

#include "format.h"

#define SHAPE_HEAD_BYTES 8      /* of the length to that of the key */
#define DELTA_FIRST_BYTE_MAX 0x7e

/* Where the fields of the last record were. `left`: records until the delta's first byte is full; 0: nothing is known. */
typedef struct {
    record_fields r; /* of the last record */
    int64_t left, size, key_at, tail_at, value_at;
    uint64_t head, head_mask, step; /* length, attributes, deltas, key length */
    uint64_t tail, tail_mask;       /* value length */
} record_shape;

static inline uint64_t load_le64(const void *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline uint64_t bytes_mask(int64_t count) { return count >= 8 ? ~0ull : (1ull << (count * 8)) - 1; }
static inline int64_t after_varint(const char *p, int64_t at) { while (p[at++] & 0x80) {} return at; }

/* REQUIRES: `s->r` are the fields of the record of `s->size` bytes at `p`. */
static inline void record_shape_learn(record_shape *s, const char *p) {
    int64_t delta_at = after_varint(p, after_varint(p, 0) + 1); /* behind length, attributes, timestamp delta */
    s->key_at = after_varint(p, after_varint(p, delta_at));
    s->tail_at = s->key_at + (s->r.key_length > 0 ? s->r.key_length : 0);
    s->value_at = s->r.value - p;
    if (s->key_at > SHAPE_HEAD_BYTES || s->size < SHAPE_HEAD_BYTES || s->tail_at + 8 > s->size) return;
    if (s->r.header_count != 0 || s->r.offset_delta < 0) return;
    s->head_mask = bytes_mask(s->key_at);
    s->head = load_le64(p) & s->head_mask;
    s->tail_mask = bytes_mask(s->value_at - s->tail_at);
    s->tail = load_le64(p + s->tail_at) & s->tail_mask;
    s->step = 2ull << (delta_at * 8);
    s->left = (DELTA_FIRST_BYTE_MAX - (p[delta_at] & DELTA_FIRST_BYTE_MAX)) / 2;
}

/* As `record_read`, into `s->r`, for one record behind the other. `s` begins as zeros. */
INLINE const char *record_follow(const char *p, const char *end, record_shape *s) {
    const char *after;
    if (s->left > 0 && end - p >= s->size) {
        s->left--;
        s->head += s->step;
        if ((load_le64(p) & s->head_mask) == s->head && (load_le64(p + s->tail_at) & s->tail_mask) == s->tail && p[s->size - 1] == 0) {
            s->r.offset_delta++;
            s->r.key = p + s->key_at;
            s->r.value = p + s->value_at;
            s->r.headers = s->r.end = p + s->size;
            return p + s->size;
        }
    }
    after = record_read(p, end, &s->r);
    s->left = 0;
    if (after && after - p == s->size) record_shape_learn(s, p); /* the second of its size: there may be more */
    s->size = after ? after - p : 0;
    return after;
}

/* Writes values as records without key and headers, from `p` on, until `limit` is reached; `p` has room for all of
 * them at RECORD_OVERHEAD_MAX + length each. The end of what was written; `*count` is how many that are. */
static inline char *values_write(char *p, const char *limit, int64_t timestamp_delta, int32_t offset_delta,
                                 const char *const *values, const int64_t *lengths, int64_t *count) {
    char prefix[16] = {0}; /* attributes and timestamp delta are those of every record */
    int64_t i, prefix_size = varint_write(prefix + 1, timestamp_delta) - prefix;
    int64_t length = -1, left = 0, head_size = 0; /* of the shape; `left` as above */
    uint64_t head = 0, head_end = 0, step = 0;    /* all in front of the value, at most 16 bytes */
    for (i = 0; i < *count && p < limit; i++, offset_delta++) {
        if (left > 0 && lengths[i] == length) {
            left--;
            head += step;
            memcpy(p, &head, 8);
            memcpy(p + 8, &head_end, 8); /* more than needed, as two stores */
            p += head_size;
        } else {
            char *start = p, *delta;
            length = lengths[i];
            p = varint_write(p, prefix_size + varint_size(offset_delta) + 1 + varint_size(length) + length + 1);
            memcpy(p, prefix, sizeof prefix);
            delta = p + prefix_size;
            p = varint_write(delta, offset_delta);
            *p++ = 1; /* no key */
            p = varint_write(p, length);
            head_size = p - start;
            left = head_size > 16 || delta - start > 7 ? 0 : (DELTA_FIRST_BYTE_MAX - (*delta & DELTA_FIRST_BYTE_MAX)) / 2;
            step = 2ull << ((delta - start) * 8 & 63);
            head = load_le64(start);
            head_end = load_le64(start + 8);
        }
        memcpy(p, values[i], length);
        p += length;
        *p++ = 0; /* no headers */
    }
    *count = i;
    return p;
}

#endif
