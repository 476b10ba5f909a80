/* Who wrote to a partition lately: the part of its control file from which a repeated, lost or outdated batch is told
 * (KIP-98: the last five batches of a producer).
 *
 * 112 entries in 16 sets of 7, found by the producer's id; a new producer takes the place of the one in its set that wrote
 * longest ago, and one that wrote nothing for 24 hours (by the timestamps of its batches) is forgotten. A producer that is
 * not known may go on at any sequence, as in Kafka.
 *
 * REQUIRES: the writer lock for every function here.
 * Crash policy: the batch that was stored last is noted in the control slot, with which it became visible at once; the
 * next append enters it here first. Entering it twice, or again after it was half done, gives the same entry, so a writer
 * may be killed anywhere. After a power cut the table is empty. */
#ifndef PENSTOCK_PRODUCERS_H
#define PENSTOCK_PRODUCERS_H

#include "control.h"
#include "format.h"

#define PRODUCER_KNOWN 0
#define PRODUCER_STALE 1     /* a newer epoch has written */
#define PRODUCER_GAP 2       /* batches are missing before this one, or it is older than the last five */
#define PRODUCER_DUPLICATE 3 /* stored already, at the offset that is returned */

#define PRODUCER_EXPIRATION_MS (24 * 3600 * 1000ll)
#define SEQUENCE_MASK 0x7fffffffu

_Static_assert(sizeof(producer_entry) == 128, "producer entry");

static inline uint32_t sequence_after(uint32_t sequence, uint32_t count) { return (sequence + count) & SEQUENCE_MASK; }

static inline producer_entry *producers_set(control_file *c, int64_t producer_id) {
    uint64_t hash = (uint64_t)producer_id * 0x9E3779B97F4A7C15ull;
    return c->producers + (hash >> 60) * PRODUCER_WAYS;
}

static inline producer_entry *producers_find(control_file *c, int64_t producer_id) {
    producer_entry *set = producers_set(c, producer_id);
    for (int i = 0; i < PRODUCER_WAYS; i++)
        if (set[i].key == producer_id + 1) return &set[i];
    return NULL;
}

static inline void producer_forget_batches(producer_entry *e) {
    for (int i = 0; i < PRODUCER_BATCHES; i++) e->batches[i].base_offset = -1;
    __atomic_signal_fence(__ATOMIC_SEQ_CST); /* half done, it is done again: nothing after it tells otherwise yet */
}

static inline producer_entry *producers_insert(control_file *c, int64_t producer_id) {
    producer_entry *set = producers_set(c, producer_id), *e = set;
    for (int i = 1; i < PRODUCER_WAYS; i++) {
        if (e->key == 0) break;
        if (set[i].key == 0 || set[i].last_offset < e->last_offset) e = &set[i];
    }
    __atomic_store_n(&e->key, 0, __ATOMIC_SEQ_CST);
    e->epoch = -1;
    producer_forget_batches(e);
    __atomic_store_n(&e->key, producer_id + 1, __ATOMIC_SEQ_CST);
    return e;
}

/* Enter the batch that the slot notes, if any. */
static inline void producers_enter(control_file *c, const control_slot *s) {
    int32_t epoch = (int32_t)(s->noted_sequence >> 32);
    producer_entry *e;
    producer_batch *b;
    if (s->noted_producer == 0) return;
    e = producers_find(c, s->noted_producer - 1);
    if (!e) e = producers_insert(c, s->noted_producer - 1);
    if (e->epoch != epoch) {
        producer_forget_batches(e);
        e->epoch = epoch;
    }
    b = e->batches;
    for (int i = 1; i < PRODUCER_BATCHES; i++)
        if (e->batches[i].base_offset < b->base_offset) b = &e->batches[i];
    for (int i = 0; i < PRODUCER_BATCHES; i++)
        if (e->batches[i].base_offset == s->noted_offset) b = &e->batches[i];
    b->base_sequence = (uint32_t)s->noted_sequence;
    b->last_sequence = sequence_after(b->base_sequence, (uint32_t)(s->log_end_offset - 1 - s->noted_offset));
    e->last_sequence = b->last_sequence;
    e->last_ms = s->noted_ms;
    e->last_offset = s->noted_offset;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    b->base_offset = s->noted_offset;
}

static inline int producer_numbers(const char *batch) {
    return (int64_t)load_be64(batch + BATCH_PRODUCER_ID) >= 0 && !(load_be16(batch + BATCH_ATTRIBUTES) & ATTRIBUTE_CONTROL);
}

/* May this batch be stored? One of the codes above; `*offset` is that of a duplicate. */
static inline int producers_check(control_file *c, const char *batch, int64_t *offset) {
    int32_t epoch = (int16_t)load_be16(batch + BATCH_PRODUCER_EPOCH);
    uint32_t first = load_be32(batch + BATCH_BASE_SEQUENCE), last;
    producer_entry *e = producers_find(c, (int64_t)load_be64(batch + BATCH_PRODUCER_ID));
    if (!e) return PRODUCER_KNOWN;
    if ((int64_t)load_be64(batch + BATCH_MAX_TIMESTAMP) - e->last_ms > PRODUCER_EXPIRATION_MS) return PRODUCER_KNOWN;
    if (epoch < e->epoch) return PRODUCER_STALE;
    if (epoch == e->epoch) {
        last = sequence_after(first, load_be32(batch + BATCH_LAST_OFFSET_DELTA));
        for (int i = 0; i < PRODUCER_BATCHES; i++) {
            producer_batch *b = &e->batches[i];
            if (b->base_offset < 0 || b->base_sequence != first || b->last_sequence != last) continue;
            *offset = b->base_offset;
            return PRODUCER_DUPLICATE;
        }
    } else if (first == 0) return PRODUCER_KNOWN;
    return first == sequence_after(e->last_sequence, 1) ? PRODUCER_KNOWN : PRODUCER_GAP;
}

/* Note the batch in the slot with which it becomes visible. REQUIRES: the slot's end is still the batch's beginning. */
static inline void producers_note(control_slot *s, const char *batch) {
    s->noted_producer = (int64_t)load_be64(batch + BATCH_PRODUCER_ID) + 1;
    s->noted_offset = s->log_end_offset;
    s->noted_sequence = (int64_t)load_be16(batch + BATCH_PRODUCER_EPOCH) << 32 | load_be32(batch + BATCH_BASE_SEQUENCE);
    s->noted_ms = (int64_t)load_be64(batch + BATCH_MAX_TIMESTAMP);
}

#endif
