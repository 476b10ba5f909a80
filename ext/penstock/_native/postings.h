/* Rows of the event store's index, and how an event is found in a record.
 *
 * A row says that events of a term (a stream, a type, ...) begin at an offset of the log. Rows are sorted by hash, then
 * position: also those of several terms whose hashes are the same. `number`: of a stream's events the version of the first
 * one; else 0. All of it is little endian. */
#ifndef PENSTOCK_POSTINGS_H
#define PENSTOCK_POSTINGS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"

typedef struct {
    uint64_t hash, number, position;
} posting;

#define POSTING_BYTES 24
#define BLOCK_ROWS 256
#define BLOCK_BYTES (BLOCK_ROWS * POSTING_BYTES) /* the unit of checksums; rows never lie across two of them */
#define RUN_HEADER_BYTES 4096

#define TERM_STREAM 's'
#define TERM_STATE 'l'
#define TERM_TYPE 't'
#define TERM_TAG 'g'
#define TERM_CATEGORY 'c'

static uint64_t term_hash_mask = ~0ull; /* tests let hashes collide */

static inline uint64_t hash_mix(uint64_t h) {
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93ull;
    h ^= h >> 29;
    return h;
}

/* Eight bytes at a time, multiplied and folded; part of the format of runs. */
static inline uint64_t term_hash(char kind, const char *p, int64_t size) {
    uint64_t h = 0x9e3779b97f4a7c15ull * (uint64_t)(unsigned char)kind + (uint64_t)size, word;
    for (; size >= 8; size -= 8, p += 8) {
        memcpy(&word, p, 8);
        h = hash_mix((h ^ word) * 0xa0761d6478bd642full);
    }
    if (size > 0) {
        word = 0;
        memcpy(&word, p, size);
        h = hash_mix((h ^ word) * 0xa0761d6478bd642full);
    }
    return hash_mix(h * 0xe7037ed1a0b428dbull) & term_hash_mask;
}

static inline int posting_less(const posting *a, const posting *b) {
    return a->hash != b->hash ? a->hash < b->hash : a->position < b->position;
}

/* Sorts rows that are in the order of their positions. `spare` has room for as many. */
static inline void postings_sort(posting *rows, posting *spare, int64_t count) {
    posting *from = rows, *to = spare;
    for (int shift = 0; shift < 64; shift += 8) {
        int64_t starts[257] = {0};
        for (int64_t i = 0; i < count; i++) starts[((from[i].hash >> shift) & 255) + 1]++;
        if (count && starts[((from[0].hash >> shift) & 255) + 1] == count) continue;
        for (int i = 0; i < 256; i++) starts[i + 1] += starts[i];
        for (int64_t i = 0; i < count; i++) to[starts[(from[i].hash >> shift) & 255]++] = from[i];
        posting *swap = from;
        from = to;
        to = swap;
    }
    if (from != rows) memcpy(rows, from, count * sizeof(posting));
}

#define MERGE_MOST 64

/* Merges sorted runs; each one's rows lie before those of the next one in the log. */
static inline void postings_merge(const posting **runs, const int64_t *counts, int n, posting *out) {
    const posting *heads[MERGE_MOST], *ends[MERGE_MOST];
    int left = 0;
    for (int i = 0; i < n; i++)
        if (counts[i]) {
            heads[left] = runs[i];
            ends[left++] = runs[i] + counts[i];
        }
    while (left) {
        int least = 0;
        for (int i = 1; i < left; i++)
            if (posting_less(heads[i], heads[least])) least = i;
        *out++ = *heads[least]++;
        if (heads[least] == ends[least]) {
            left--;
            for (int i = least; i < left; i++) {
                heads[i] = heads[i + 1];
                ends[i] = ends[i + 1];
            }
        }
    }
}

/* For each bucket of the leading `bits` bits of the hash, the first row that is in it or behind it; one more at the end. */
static inline void postings_directory(const posting *rows, int64_t count, int bits, uint64_t *directory) {
    int64_t buckets = 1ll << bits, bucket = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t of_row = bits ? (int64_t)(rows[i].hash >> (64 - bits)) : 0;
        while (bucket <= of_row) directory[bucket++] = (uint64_t)i;
    }
    while (bucket <= buckets) directory[bucket++] = (uint64_t)count;
}

/* An event as it lies in a record. */
typedef struct {
    int64_t version, schema, type_length, tag_count;
    const char *type, *tags; /* tags: the encoded headers that follow */
} event_fields;

#define RECORD_FOREIGN 0
#define RECORD_EVENT 1
#define RECORD_STATE 2
#define RECORD_BROKEN -1

static inline const char *header_read(const char *p, const char *end, const char **name, int64_t *name_length,
                                      const char **value, int64_t *value_length) {
    p = varint_read(p, end, VARINT_MAX_BYTES, name_length);
    if (!p || *name_length < 0 || *name_length > end - p) return NULL;
    *name = p;
    p = varint_read(p + *name_length, end, VARINT_MAX_BYTES, value_length);
    if (!p || *value_length < -1 || *value_length > end - p) return NULL;
    *value = p;
    return p + (*value_length > 0 ? *value_length : 0);
}

static inline int64_t decimal_read(const char *p, int64_t length) {
    int64_t value = 0;
    if (length < 1 || length > 18) return -1;
    for (int64_t i = 0; i < length; i++) {
        if (p[i] < '0' || p[i] > '9') return -1;
        value = value * 10 + (p[i] - '0');
    }
    return value;
}

static inline int name_is(const char *name, int64_t length, const char *wanted, int64_t wanted_length) {
    return length == wanted_length && memcmp(name, wanted, wanted_length) == 0;
}

/* Which of the RECORD_... it is. An event has a key and begins with the headers version, type, schema; a state with
 * `state`. What others put into the topic is foreign. */
static inline int event_read(const record_fields *r, event_fields *e) {
    const char *name, *value, *p = r->headers;
    int64_t name_length, value_length;
    if (r->key_length < 0 || r->value_length < 0 || r->header_count < 1) return RECORD_FOREIGN;
    if (!(p = header_read(p, r->end, &name, &name_length, &value, &value_length))) return RECORD_BROKEN;
    if (name_is(name, name_length, "state", 5)) return RECORD_STATE;
    if (r->header_count < 3 || !name_is(name, name_length, "version", 7)) return RECORD_FOREIGN;
    if ((e->version = decimal_read(value, value_length)) < 0) return RECORD_FOREIGN;
    if (!(p = header_read(p, r->end, &name, &name_length, &e->type, &e->type_length))) return RECORD_BROKEN;
    if (!name_is(name, name_length, "type", 4) || e->type_length < 0) return RECORD_FOREIGN;
    if (!(p = header_read(p, r->end, &name, &name_length, &value, &value_length))) return RECORD_BROKEN;
    if (!name_is(name, name_length, "schema", 6)) return RECORD_FOREIGN;
    if ((e->schema = decimal_read(value, value_length)) < 0) return RECORD_FOREIGN;
    e->tags = p;
    e->tag_count = r->header_count - 3;
    return RECORD_EVENT;
}

/* The next tag, or NULL when the header is broken; `*tag` is NULL when it is another header. */
static inline const char *tag_read(const char *p, const char *end, const char **tag, int64_t *length) {
    const char *name;
    int64_t name_length;
    p = header_read(p, end, &name, &name_length, tag, length);
    if (p && (!name_is(name, name_length, "tag", 3) || *length < 0)) *tag = NULL;
    return p;
}

#endif
