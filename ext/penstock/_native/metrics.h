/* Counters and histograms that every process of a directory shares: layout, and the functions of the hot paths.
 *
 * The file `metrics` is made of slots of 16 KiB. Slot 0 says how many are in use; each other one belongs to a partition,
 * to a share group in a partition, or to a consumer group. Native byte order: it never leaves the machine it lives on.
 *
 * Who may change what: what an append or a sync counts is changed under the lock that it holds anyway, by plain stores;
 * everything else by atomic additions. Reading needs nothing. Nothing here is waited for or synced.
 * Crash policy: counters survive their process. A writer killed between publishing a batch and counting it leaves
 * `seen_end` behind the log's end; the next one counts what is missing, and so does a reader. */
#ifndef PENSTOCK_METRICS_H
#define PENSTOCK_METRICS_H

#include <stddef.h>
#include <stdint.h>

#define METRICS_MAGIC "PNSTMET1"
#define METRICS_SLOT_BYTES 16384
#define METRICS_SLOTS 16384
#define METRICS_GROWTH 8 /* slots the file grows by */
#define METRICS_NAMES 1216
#define METRICS_SUB_BITS 3
#define METRICS_BUCKETS 272 /* 8 for each power of two up to 2^36 */
#define METRICS_SAMPLE 16   /* of what is too short to be timed each time, one of so many is */

enum { METRICS_FREE, METRICS_USED, METRICS_RETIRED };
enum { METRICS_PARTITION = 1, METRICS_SHARE = 2, METRICS_GROUP = 3 };
enum { ERROR_DISK_FULL, ERROR_IO, ERROR_CORRUPTION, ERROR_OUT_OF_RANGE, ERROR_FENCED, ERROR_OUT_OF_ORDER, ERROR_TOO_LARGE, ERROR_CONFLICT, ERROR_FULL };

typedef struct {
    int64_t sum;
    int64_t buckets[METRICS_BUCKETS];
} metrics_histogram;

typedef struct {
    int64_t state, kind, number;
    int64_t created_ms, retired_ms;
    int64_t topic_bytes, group_bytes;
    int64_t pad;
    char names[METRICS_NAMES]; /* topic, then group; UTF-8 */
} metrics_head;

typedef struct {
    metrics_head head;
    /* by appends, under the writer lock */
    int64_t records_in, bytes_in, batches_in;
    int64_t seen_end, seen_base, seen_position; /* the log's end, as of the last append that was counted; -1: none yet */
    int64_t pad0[2];
    /* by readers */
    int64_t records_out, bytes_out, fetches, polls;
    int64_t pad1[4];
    /* by syncs, under the sync lock */
    int64_t syncs;
    int64_t pad2[7];
    int64_t saved_bytes; /* what compression took off */
    int64_t pad3[7];
    int64_t errors[16];
    char pad4[4096 - 1280 - 6 * 64];
    metrics_histogram append_ns, poll_ns, sync_ns, batch_records, batch_bytes;
    char pad5[METRICS_SLOT_BYTES - 4096 - 5 * sizeof(metrics_histogram)];
} metrics_partition;

typedef struct {
    metrics_head head;
    int64_t received, redelivered, timed_out, receives; /* by claims, under the group's lock */
    int64_t pad0[4];
    int64_t acknowledged, negative, released, extended, dead, expired, dropped, stale; /* atomic */
    char pad1[4096 - 1280 - 2 * 64];
    metrics_histogram wait_ms, processing_us, receive_records;
    char pad2[METRICS_SLOT_BYTES - 4096 - 3 * sizeof(metrics_histogram)];
} metrics_share;

typedef struct {
    metrics_head head;
    int64_t commits, refused;
    char pad[METRICS_SLOT_BYTES - 1280 - 16];
} metrics_group;

typedef struct {
    char magic[8];
    int64_t used; /* slots below this were given out once */
} metrics_file_head;

_Static_assert(sizeof(metrics_head) == 1280, "head");
_Static_assert(offsetof(metrics_partition, append_ns) == 4096, "histograms of a partition");
_Static_assert(offsetof(metrics_share, wait_ms) == 4096, "histograms of a share group");
_Static_assert(sizeof(metrics_partition) == METRICS_SLOT_BYTES, "partition");
_Static_assert(sizeof(metrics_share) == METRICS_SLOT_BYTES, "share group");
_Static_assert(sizeof(metrics_group) == METRICS_SLOT_BYTES, "group");

/* Log-linear: below 8 a bucket each, then 8 for each power of two. */
static inline int metrics_bucket(int64_t value) {
    int power;
    if (value < 1 << METRICS_SUB_BITS) return value < 0 ? 0 : (int)value;
    power = 63 - __builtin_clzll((uint64_t)value);
    if (power >= METRICS_BUCKETS / 8 + 2) return METRICS_BUCKETS - 1;
    return ((power - METRICS_SUB_BITS + 1) << METRICS_SUB_BITS) | (int)(value >> (power - METRICS_SUB_BITS) & 7);
}

static inline void metrics_add(int64_t *counter, int64_t n) { __atomic_fetch_add(counter, n, __ATOMIC_RELAXED); }

/* Under the lock that guards the histogram. */
static inline void metrics_observe(metrics_histogram *h, int64_t value, int64_t weight) {
    h->sum += value * weight;
    h->buckets[metrics_bucket(value)] += weight;
}

static inline void metrics_observe_shared(metrics_histogram *h, int64_t value, int64_t weight) {
    metrics_add(&h->sum, value * weight);
    metrics_add(&h->buckets[metrics_bucket(value)], weight);
}

/* A batch was published at `offset`, in the segment `base` at `position`. Under the writer lock. */
static inline void metrics_appended(metrics_partition *m, int64_t offset, int64_t base, int64_t position, int64_t size, int64_t records,
                                    int64_t next_offset) {
    if (m->seen_end != offset && m->seen_end >= 0 && m->seen_end < offset) { /* its writer died before it was counted */
        m->records_in += offset - m->seen_end;
        m->batches_in++;
        if (m->seen_base == base && m->seen_position < position) m->bytes_in += position - m->seen_position;
    }
    m->records_in += records;
    m->bytes_in += size;
    m->batches_in++;
    m->seen_end = next_offset;
    m->seen_base = base;
    m->seen_position = position + size;
    metrics_observe(&m->batch_records, records, 1);
    metrics_observe(&m->batch_bytes, size, 1);
}

static inline void metrics_error(metrics_partition *m, int kind) {
    if (m) metrics_add(&m->errors[kind], 1);
}

#endif
