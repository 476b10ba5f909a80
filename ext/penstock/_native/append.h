/* Appending a sealed batch to the active segment: the one place that writes to a log.
 *
 * REQUIRES: the writer's maps belong to the segment it names; everything else is checked under the lock.
 * Crash policy: bytes go past the published end, then `control_publish` makes them visible at once or never. */
#ifndef PENSTOCK_APPEND_H
#define PENSTOCK_APPEND_H

#include <sys/uio.h>

#include "control.h"
#include "metrics.h"
#include "producers.h"

#define APPEND_OK 0
#define APPEND_BUSY 1    /* the lock is taken and waiting was not asked for */
#define APPEND_REFRESH 2 /* another segment became the active one, or the map is too short */
#define APPEND_ROLL 3    /* the batch belongs into a new segment */
#define APPEND_DELETED 4
#define APPEND_ERROR 5   /* see `error`: an errno */
#define APPEND_FENCED 6  /* the producer's epoch is over */
#define APPEND_SEQUENCE 7 /* batches of the producer are missing before this one */
#define APPEND_DUPLICATE 8 /* stored before: nothing to do */
#define APPEND_CONFLICT 9  /* the log does not end where it was expected to */
#define APPEND_FULL 10     /* the partition would be larger than it may be */
#define APPEND_COUNT 11    /* how large the partition is has to be counted first */

#define WRITE_CALL_MIN (16 << 10)
#define SMALL_RUN_MIN 4
#define APPEND_RUN_MAX 16
#define ALLOCATE_MIN (1 << 20)
#define ALLOCATE_MAX (64 << 20)

typedef struct {
    control_file *control;
    lock_handle lock;
    bell_word *bell;
    char *log, *index, *time_index;
    int log_fd, index_fd, time_index_fd;
    int64_t base_offset; /* of the mapped segment; -1: none */
    int64_t log_length, index_length, time_index_length; /* of the maps */
    int64_t segment_bytes, segment_ms;
    int64_t full_bytes; /* what would make the partition larger is refused; -1: nothing is */
    int64_t dead_owners; /* how often the lock came from a writer that died */
    int sync_each; /* every append is followed by a sync */
    int small_run; /* small appends since a large one */
    unsigned ticks; /* appends of one record, of which some are timed */
    int error;
    metrics_partition *metrics; /* NULL: nothing is counted */
} append_writer;

/* Make sure [0, need) has blocks, growing ahead by doubling. `allocated` is shared and only grows after the file did. */
static inline int append_reserve(int fd, int64_t *allocated, int64_t need, int64_t most, int64_t least) {
    int64_t goal;
    int rc;
    if (need <= *allocated) return 0;
    goal = *allocated * 2;
    if (goal < least) goal = least;
    if (goal > *allocated + ALLOCATE_MAX) goal = *allocated + ALLOCATE_MAX;
    if (goal > most) goal = most;
    if (goal < need) goal = need;
    rc = file_reserve(fd, *allocated, goal);
    if (rc == ENOSPC && goal > need) {
        goal = (need + 4095) & ~4095ll;
        if (goal > most) goal = need;
        rc = file_reserve(fd, *allocated, goal);
    }
    if (rc == 0) __atomic_store_n(allocated, goal, __ATOMIC_RELEASE);
    return rc;
}

static inline int append_index(append_writer *w, control_slot *s, int64_t last_offset, int64_t position) {
    int64_t index_end = (s->index_entries + 1) * INDEX_ENTRY_BYTES;
    int64_t time_end = (s->time_index_entries + 1) * TIME_INDEX_ENTRY_BYTES;
    int rc;
    if (index_end > w->index_length || time_end > w->time_index_length) return 0; /* full: sparser, still right */
    rc = append_reserve(w->index_fd, &w->control->allocated_index, index_end, w->index_length, 4096);
    if (!rc) rc = append_reserve(w->time_index_fd, &w->control->allocated_time_index, time_end, w->time_index_length, 4096);
    if (rc) return rc;
    store_be32(w->index + index_end - INDEX_ENTRY_BYTES, (uint32_t)(last_offset - s->active_base_offset));
    store_be32(w->index + index_end - 4, (uint32_t)position);
    s->index_entries++;
    if (s->max_timestamp_ms > s->last_indexed_timestamp_ms) {
        store_be64(w->time_index + time_end - TIME_INDEX_ENTRY_BYTES, (uint64_t)s->max_timestamp_ms);
        store_be32(w->time_index + time_end - 4, (uint32_t)(s->max_timestamp_offset - s->active_base_offset));
        s->time_index_entries++;
        s->last_indexed_timestamp_ms = s->max_timestamp_ms;
    }
    s->bytes_since_index = 0;
    return 0;
}

/* Large batches go through the system call, which fills fresh pages without faulting on each of them. Small ones are
 * cheaper to copy into the map, but for a few after a large one (a fault on a page that may be left at once), and unless
 * each is synced: a page that was just written back faults on the next store, and waits for the disk. All end in the same
 * page cache. */
static inline int append_copy(append_writer *w, const char *batch, int64_t size, int64_t position, int64_t base_offset) {
    char base[8];
    if (size >= WRITE_CALL_MIN) w->small_run = 0;
    else if (!w->sync_each && w->small_run++ >= SMALL_RUN_MIN) {
        w->small_run = SMALL_RUN_MIN;
        memcpy(w->log + position, batch, size);
        store_be64(w->log + position, (uint64_t)base_offset);
        return 0;
    }
    store_be64(base, (uint64_t)base_offset);
    for (int64_t done = 0; done < size;) {
        struct iovec parts[2] = {{base + done, 8 - done}, {(char *)batch + 8, size - 8}};
        if (done >= 8) parts[0].iov_len = 0, parts[1].iov_base = (char *)batch + done, parts[1].iov_len = size - done;
        ssize_t wrote = pwritev(w->log_fd, parts, 2, position + done);
        if (wrote < 0 && errno != EINTR) return errno;
        if (wrote > 0) done += wrote;
    }
    return 0;
}

/* `fence` is checked under the lock: once it changed, and the lock was free once, nothing of that epoch can come any more.
 * `*base_offset` comes in as the log end that is expected (-1: any), and goes out as where the batch was stored, or as the
 * actual end after APPEND_CONFLICT. `in_place`: its bytes lie behind the end already, with that base offset. */
static inline int append_placed(append_writer *w, const char *batch, int64_t size, const int64_t *fence, int64_t epoch,
                                int64_t *base_offset, int in_place) {
    control_file *c = w->control;
    control_slot s;
    int numbered = producer_numbers(batch);
    int64_t last_offset, position, max_timestamp = (int64_t)load_be64(batch + BATCH_MAX_TIMESTAMP);
    if (c->flags & PENSTOCK_FLAG_DELETED) return APPEND_DELETED;
    if (fence && __atomic_load_n(fence, __ATOMIC_SEQ_CST) != epoch) return APPEND_FENCED;
    s = *control_published(c);
    producers_enter(c, &s);
    s.noted_producer = 0;
    if (*base_offset >= 0 && *base_offset != s.log_end_offset) {
        *base_offset = s.log_end_offset;
        return APPEND_CONFLICT;
    }
    if (numbered) switch (producers_check(c, batch, base_offset)) {
    case PRODUCER_STALE: return APPEND_FENCED;
    case PRODUCER_GAP: return APPEND_SEQUENCE;
    case PRODUCER_DUPLICATE: return APPEND_DUPLICATE;
    }
    if (w->full_bytes >= 0 && !(load_be16(batch + BATCH_ATTRIBUTES) & ATTRIBUTE_CONTROL)) { /* a transaction can always end */
        if (c->counted_generation != s.generation + 1 || c->counted_start != s.log_start_offset) return APPEND_COUNT;
        if (c->counted_bytes + s.end_position + size > w->full_bytes) return APPEND_FULL;
    }
    if (s.active_base_offset != w->base_offset) return APPEND_REFRESH;
    position = s.end_position;
    if (position > 0) {
        if (position + size > w->segment_bytes) return APPEND_ROLL;
        if (max_timestamp - s.first_timestamp_ms > w->segment_ms) return APPEND_ROLL;
        if (s.log_end_offset - s.active_base_offset > 0x7fffffffll - 0x1000000) return APPEND_ROLL;
    }
    if (position + size > w->log_length) return position ? APPEND_ROLL : APPEND_REFRESH;
    w->error = append_reserve(w->log_fd, &c->allocated_log, position + size, w->log_length, ALLOCATE_MIN);
    if (w->error) return APPEND_ERROR;
    last_offset = s.log_end_offset + (int32_t)load_be32(batch + BATCH_LAST_OFFSET_DELTA);
    if (s.bytes_since_index > INDEX_INTERVAL_BYTES) {
        w->error = append_index(w, &s, last_offset, position);
        if (w->error) return APPEND_ERROR;
    }
    if (!in_place) w->error = append_copy(w, batch, size, position, s.log_end_offset);
    if (w->error) return APPEND_ERROR;
    s.bytes_since_index += size;
    if (position == 0) s.first_timestamp_ms = max_timestamp;
    if (max_timestamp > s.max_timestamp_ms) {
        s.max_timestamp_ms = max_timestamp;
        s.max_timestamp_offset = last_offset;
    }
    if (numbered) producers_note(&s, batch);
    *base_offset = s.log_end_offset;
    s.log_end_offset = last_offset + 1;
    s.end_position = position + size;
    control_publish(c, &s);
    if (w->metrics)
        metrics_appended(w->metrics, *base_offset, s.active_base_offset, position, size,
                         load_be16(batch + BATCH_ATTRIBUTES) & ATTRIBUTE_CONTROL ? 0 : (int32_t)load_be32(batch + BATCH_COUNT), last_offset + 1);
    return APPEND_OK;
}

static inline int append_locked(append_writer *w, const char *batch, int64_t size, const int64_t *fence, int64_t epoch,
                                int64_t *base_offset) {
    return append_placed(w, batch, size, fence, epoch, base_offset, 0);
}

static inline int writer_append(append_writer *w, const char *batch, int64_t size, int wait, const int64_t *fence,
                                int64_t epoch, int64_t *base_offset) {
    int64_t weight = !w->metrics ? 0 : load_be32(batch + BATCH_COUNT) > 1 ? 1 : ++w->ticks % METRICS_SAMPLE == 0 ? METRICS_SAMPLE : 0;
    int64_t started = weight ? monotonic_ns() : 0;
    int rc = lock_acquire(&w->lock, wait);
    if (rc == EBUSY) return APPEND_BUSY;
    if (rc == EOWNERDEAD) w->dead_owners++;
    else if (rc) {
        w->error = rc;
        return APPEND_ERROR;
    }
    rc = append_locked(w, batch, size, fence, epoch, base_offset);
    if (weight && rc == APPEND_OK) metrics_observe(&w->metrics->append_ns, monotonic_ns() - started, weight);
    lock_release(&w->lock);
    if (rc == APPEND_OK) bell_ring(w->bell);
    return rc;
}

typedef struct {
    const char *data;
    int64_t size;
    int64_t offset; /* where it was stored */
} append_batch;

/* May all of a producer's consecutive batches be stored, if the first may? Asked before their bytes are written: whole
 * batches past the published end would be taken for stored ones after a power cut. REQUIRES: the lock. */
static inline int append_welcome(append_writer *w, const char *first, const int64_t *fence, int64_t epoch) {
    control_file *c = w->control;
    int64_t stored_at;
    if (c->flags & PENSTOCK_FLAG_DELETED || w->full_bytes >= 0) return 0;
    if (fence && __atomic_load_n(fence, __ATOMIC_SEQ_CST) != epoch) return 0;
    producers_enter(c, control_published(c));
    return !producer_numbers(first) || producers_check(c, first, &stored_at) == PRODUCER_KNOWN;
}

/* Write batches one behind the other past the published end, by one system call: the kernel makes larger pieces of fresh
 * pages of them. 0 when they do not all fit, or not all could be written. REQUIRES: the lock, `append_welcome`. */
static inline int append_ahead(append_writer *w, const append_batch *batches, int count) {
    control_file *c = w->control;
    const control_slot *s = control_published(c);
    struct iovec parts[2 * APPEND_RUN_MAX];
    char bases[8 * APPEND_RUN_MAX];
    int64_t total = 0, offset = s->log_end_offset;
    if (s->active_base_offset != w->base_offset) return 0;
    for (int i = 0; i < count; i++) {
        store_be64(bases + 8 * i, (uint64_t)offset);
        parts[2 * i] = (struct iovec){bases + 8 * i, 8};
        parts[2 * i + 1] = (struct iovec){(char *)batches[i].data + 8, batches[i].size - 8};
        offset += (int32_t)load_be32(batches[i].data + BATCH_LAST_OFFSET_DELTA) + 1;
        total += batches[i].size;
    }
    if (s->end_position + total > w->segment_bytes || s->end_position + total > w->log_length) return 0;
    if (append_reserve(w->log_fd, &c->allocated_log, s->end_position + total, w->log_length, ALLOCATE_MIN)) return 0;
    return pwritev(w->log_fd, parts, 2 * count, s->end_position) == total;
}

/* Store up to APPEND_RUN_MAX consecutive batches of one producer. How many were: what comes after, and why, is for
 * `writer_append` to find. The fence is checked once: the lock is not free in between. */
static inline int writer_append_run(append_writer *w, append_batch *batches, int count, const int64_t *fence, int64_t epoch) {
    int64_t started = w->metrics ? monotonic_ns() : 0;
    int stored = 0, rc = lock_acquire(&w->lock, 1);
    if (rc == EOWNERDEAD) w->dead_owners++;
    else if (rc) return 0;
    if (append_welcome(w, batches[0].data, fence, epoch) && append_ahead(w, batches, count))
        for (w->small_run = 0; stored < count; stored++) {
            batches[stored].offset = -1;
            if (append_placed(w, batches[stored].data, batches[stored].size, NULL, 0, &batches[stored].offset, 1)) break;
        }
    if (w->metrics && stored) metrics_observe(&w->metrics->append_ns, (monotonic_ns() - started) / stored, stored);
    lock_release(&w->lock);
    if (stored) bell_ring(w->bell);
    return stored;
}

#endif
