/* Delivery state of a share group in one partition: one 64-bit word a record.
 *
 * Word:  visible-at, ms since the epoch (42 bits) | times acquired (10) | failures (10) | state (2).
 *   0 AVAILABLE, 1 ACQUIRED, 2 ACKNOWLEDGED, 3 ARCHIVED. A word of zero is a record that nobody touched: available at once.
 *   A record may be acquired when visible-at has come; that of a settled record never comes: it is NEVER, less the
 *   reason for which it was archived. PARKED (ordered groups): available once the earlier record of its group is settled.
 *
 * Minima: the least visible-at of each block of 512 words, and of each chunk of 256 blocks. They are lower bounds: a settled
 * word does not raise them; the next claim that looks into the block does. So a claim skips what cannot be acquired.
 *
 * Who may change what: under the group's lock a word may change in any allowed way; without it, only from ACQUIRED to
 * ACKNOWLEDGED, by compare and swap, which never makes a minimum wrong. A minimum is lowered before the word.
 * Crash policy: every single store leaves a valid state, but for the counts of dead records and the chains of ordered
 * groups: `dirty` is set while they change, and whoever finds it set makes both again from the words. */
#ifndef PENSTOCK_DELIVERY_H
#define PENSTOCK_DELIVERY_H

#include <stdint.h>

#include "control.h"
#include "metrics.h"

#define DELIVERY_MAGIC "PNSTDLV1"
#define DELIVERY_CHUNK_BITS 17
#define DELIVERY_CHUNK (1 << DELIVERY_CHUNK_BITS)
#define DELIVERY_BLOCK 512
#define DELIVERY_BLOCKS (DELIVERY_CHUNK / DELIVERY_BLOCK)
#define DELIVERY_RING 65536 /* chunks that can be open at once: 8.6e9 records */
#define DELIVERY_WORDS_AT 4096
#define DELIVERY_CHUNK_BYTES (DELIVERY_WORDS_AT + 8 * DELIVERY_CHUNK)
#define OWNER_MS 5
#define CLOCK_SET_MS 1000 /* a wall clock that is so far behind the last claim was set back */
#define CLOCK_NOTED_MS 50 /* the time of the last claim is noted about as exactly as this */
#define OWNED 8192
#define DELIVERY_SLOTS 131072
#define DELIVERY_FIRSTS_BYTES (8 * DELIVERY_CHUNK) /* when a record was first received, ms; only of those that came back */
#define DELIVERY_CONTROL_BYTES (4096 + 8 * DELIVERY_RING)

#define VISIBLE_SHIFT 22
#define VISIBLE_NEVER ((1ll << 42) - 1)
#define VISIBLE_PARKED (VISIBLE_NEVER - 15)
#define VISIBLE_MAX (VISIBLE_NEVER - 16)
#define DEAD_REASONS 3 /* reasons up to this: kept for looking at and redriving; above: dropped or moved elsewhere */
#define COUNT_MAX 1023
#define MARKED 1015 /* failures from here on: its holder is about to dead-letter it; COUNT_MAX less the reason */
#define FAILURES_SHIFT 2
#define ACQUIRED_SHIFT 12

enum { AVAILABLE, ACQUIRED, ACKNOWLEDGED, ARCHIVED };

typedef struct {
    char magic[8];
    uint64_t incarnation;
    char boot_id[40];
    char pad0[8];
    union { pthread_mutex_t mutex; char pad[64]; } lock;
    int64_t start;    /* everything below is settled */
    int64_t frontier; /* everything below is taken in: its word counts */
    int64_t touched;  /* words at and above are zero */
    int64_t flags;
    int64_t dirty;
    char pad1[24];
    int64_t acquisitions, acknowledgements, archivals; /* so far; not on the line that everybody reads */
    int64_t claimed_ms; /* wall clock of the last claim; 0: not known */
    char pad2[4096 - 224];
    uint64_t minima[DELIVERY_RING]; /* of chunks, by number modulo the ring */
} delivery_control;

_Static_assert(offsetof(delivery_control, start) == 128, "start");
_Static_assert(offsetof(delivery_control, minima) == 4096, "minima");

typedef struct { uint32_t next, slot; } delivery_link; /* distance to the group's next record (0: none), slot + 1 */
typedef struct { int64_t head, tail; } delivery_slot;  /* offset + 1 of the first unsettled and the last record; 0: none */

typedef struct {
    delivery_control *control;
    char **chunks; /* by number - first */
    char **links;  /* likewise; NULL unless ordered */
    delivery_slot *slots; /* NULL unless ordered */
    int64_t first, count; /* number of the first chunk, and how many are mapped */
} delivery_view;

static inline int view_mapped(const delivery_view *v, int64_t offset) {
    return (uint64_t)((offset >> DELIVERY_CHUNK_BITS) - v->first) < (uint64_t)v->count;
}

static inline uint64_t *view_word(delivery_view *v, int64_t offset) {
    return (uint64_t *)(v->chunks[(offset >> DELIVERY_CHUNK_BITS) - v->first] + DELIVERY_WORDS_AT) + (offset & (DELIVERY_CHUNK - 1));
}

static inline uint64_t *view_minimum(delivery_view *v, int64_t offset) {
    return (uint64_t *)v->chunks[(offset >> DELIVERY_CHUNK_BITS) - v->first] + ((offset & (DELIVERY_CHUNK - 1)) / DELIVERY_BLOCK);
}

static inline uint64_t *view_chunk_minimum(delivery_view *v, int64_t offset) {
    return &v->control->minima[(offset >> DELIVERY_CHUNK_BITS) % DELIVERY_RING];
}

static inline int64_t *view_chunk_dead(delivery_view *v, int64_t offset) {
    return (int64_t *)(v->chunks[(offset >> DELIVERY_CHUNK_BITS) - v->first] + 8 * DELIVERY_BLOCKS);
}

/* Who claimed in a run of OWNED words last, and when (20 bits of ms, 12 of the process): for a moment others look elsewhere first, so
 * that processes do not read the same batches in turn. */
static inline uint32_t *view_owner(delivery_view *v, int64_t offset) {
    return (uint32_t *)(v->chunks[(offset >> DELIVERY_CHUNK_BITS) - v->first] + 8 * DELIVERY_BLOCKS + 8) +
           (offset & (DELIVERY_CHUNK - 1)) / OWNED;
}

static inline uint32_t owner_now(int64_t now, uint32_t process) { return (uint32_t)(now & 0xfffff) << 12 | (process & 0xfff); }

static inline int owner_other(uint32_t owner, int64_t now, uint32_t process) {
    return owner && (owner & 0xfff) != (process & 0xfff) && (((uint32_t)now - (owner >> 12)) & 0xfffff) < OWNER_MS;
}

static inline delivery_link *view_link(delivery_view *v, int64_t offset) {
    return (delivery_link *)v->links[(offset >> DELIVERY_CHUNK_BITS) - v->first] + (offset & (DELIVERY_CHUNK - 1));
}

static inline uint64_t word_get(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void word_put(uint64_t *p, uint64_t w) { __atomic_store_n(p, w, __ATOMIC_RELEASE); }
static inline int word_cas(uint64_t *p, uint64_t old, uint64_t next) {
    return __atomic_compare_exchange_n(p, &old, next, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static inline void count_up(int64_t *p, int64_t n) { __atomic_fetch_add(p, n, __ATOMIC_RELAXED); }

static inline int word_state(uint64_t w) { return w & 3; }
static inline int64_t word_visible(uint64_t w) { return (int64_t)(w >> VISIBLE_SHIFT); }
static inline int64_t word_acquired(uint64_t w) { return w >> ACQUIRED_SHIFT & COUNT_MAX; }
static inline int64_t word_failures(uint64_t w) { return w >> FAILURES_SHIFT & COUNT_MAX; }
static inline uint64_t word_make(int64_t visible, int64_t acquired, int64_t failures, int state) {
    return (uint64_t)visible << VISIBLE_SHIFT | (uint64_t)acquired << ACQUIRED_SHIFT | (uint64_t)failures << FAILURES_SHIFT | state;
}

/* --- the transition table ---------------------------------------------------------------------------------------
 *
 *             acquire              accept         release / fail   reject      renew       requeue     archive
 * AVAILABLE   ACQUIRED when due    -              -                -           -           -           ARCHIVED
 * ACQUIRED    ACQUIRED when due    ACKNOWLEDGED   AVAILABLE        ARCHIVED    ACQUIRED    -           -
 * ACKNOWLEDGED -                   (again: same)  -                -           -           -           -
 * ARCHIVED    -                    -              -                -           -           AVAILABLE   -
 *
 * What a receiver asks for (accept to renew) needs its receipt: the count of acquisitions when it received. */
enum { ACCEPT = 1, RELEASE = 2, REJECT = 3, RENEW = 4, FAIL = 5, UNDO = 6, BURY = 7 };

static inline int64_t acquired_next(int64_t acquired) { return acquired < COUNT_MAX ? acquired + 1 : COUNT_MAX / 2 + 1; }

/* The word after an acquisition; a lock that ran out was a failure. */
static inline uint64_t word_acquire(uint64_t w, int64_t until) {
    int64_t failures = word_failures(w);
    if (word_state(w) == ACQUIRED && failures < MARKED - 1) failures++;
    return word_make(until, acquired_next(word_acquired(w)), failures, ACQUIRED);
}

#define WORD_STALE UINT64_MAX /* no word is this */

/* The word after what its receiver asks for; WORD_STALE when the receipt is. `visible` as RELEASE, FAIL, RENEW need it; for
 * REJECT and BURY the reason. */
static inline uint64_t word_settle(uint64_t w, int64_t receipt, int action, int64_t visible) {
    int64_t acquired = word_acquired(w), failures = word_failures(w);
    if (acquired != receipt || acquired == 0) return WORD_STALE;
    if (word_state(w) == ACKNOWLEDGED && action == ACCEPT) return w;
    if (word_state(w) != ACQUIRED) return WORD_STALE;
    switch (action) {
    case ACCEPT: return word_make(VISIBLE_NEVER, acquired, failures, ACKNOWLEDGED);
    case RELEASE: return word_make(visible, acquired, failures, AVAILABLE);
    case FAIL: return word_make(visible, acquired, failures + (failures < MARKED - 1), AVAILABLE);
    case REJECT: return word_make(VISIBLE_NEVER - visible, acquired, failures, ARCHIVED);
    case RENEW: return word_make(visible, acquired, failures, ACQUIRED);
    case BURY: return word_make(word_visible(w), acquired, COUNT_MAX - visible, ACQUIRED); /* a letter is about to be stored */
    case UNDO: return word_make(visible, acquired - 1, failures, AVAILABLE); /* it was not handed out */
    }
    return WORD_STALE;
}

/* Acknowledge without the lock, which ordered groups need. 1 done, 0 it was done before, -1 it takes the lock, or is stale. */
static inline int view_accept(delivery_view *v, int64_t offset, int64_t receipt) {
    uint64_t *p, w, next;
    if (v->slots || !view_mapped(v, offset) || offset < v->control->start) return -1;
    p = view_word(v, offset);
    do {
        w = word_get(p);
        next = word_settle(w, receipt, ACCEPT, 0);
        if (next == WORD_STALE) return -1;
        if (next == w) return 0;
    } while (!word_cas(p, w, next));
    return 1;
}

/* Before a word becomes visible earlier. Under the lock. */
static inline void view_lower(delivery_view *v, int64_t offset, int64_t visible) {
    uint64_t bound = (uint64_t)visible << VISIBLE_SHIFT;
    uint64_t *chunk = view_chunk_minimum(v, offset), *block = view_minimum(v, offset);
    if (*chunk > bound) word_put(chunk, bound);
    if (*block > bound) word_put(block, bound);
}

/* The wall clock was set back, by `back` ms to `now`: times that were counted from it come that much earlier, though no lock
 * ends before `lock` ms from now. Times that a sender gave (of what was never received) stay. Under the lock, all chunks
 * mapped. */
static inline void view_clock_back(delivery_view *v, int64_t now, int64_t back, int64_t lock) {
    delivery_control *c = v->control;
    int64_t o, end = c->touched < c->frontier ? c->touched : c->frontier;
    for (o = c->start; o < end; o++) {
        uint64_t *p = view_word(v, o), w, next;
        do { /* what is in flight may be acknowledged meanwhile */
            int64_t visible, least;
            w = word_get(p);
            visible = word_visible(w);
            if (word_state(w) > ACQUIRED || word_acquired(w) == 0 || visible > VISIBLE_MAX) break;
            least = word_state(w) == ACQUIRED ? now + lock : now;
            if (visible <= least) break;
            visible = visible - back > least ? visible - back : least;
            view_lower(v, o, visible);
            next = word_make(visible, word_acquired(w), word_failures(w), word_state(w));
        } while (!word_cas(p, w, next));
    }
}

static inline int word_dead(uint64_t w) {
    return word_state(w) == ARCHIVED && VISIBLE_NEVER - word_visible(w) <= DEAD_REASONS;
}

static inline void view_touch(delivery_view *v, int64_t offset) {
    if (v->control->touched <= offset) word_put((uint64_t *)&v->control->touched, offset + 1);
}

/* --- ordered groups -------------------------------------------------------------------------------------------- */

/* The head of a group was settled: the next unsettled record of the group takes its place. Under the lock. */
static inline void group_advance(delivery_view *v, int64_t offset) {
    delivery_slot *slot = &v->slots[view_link(v, offset)->slot - 1];
    int64_t n = offset;
    if (slot->head != offset + 1) return;
    for (;;) {
        uint32_t step = view_link(v, n)->next;
        uint64_t w;
        if (step == 0) {
            slot->head = slot->tail = 0;
            return;
        }
        n += step;
        w = word_get(view_word(v, n));
        if (word_state(w) >= ACKNOWLEDGED) continue;
        slot->head = n + 1;
        if (word_visible(w) == VISIBLE_PARKED) {
            view_lower(v, n, 0);
            word_put(view_word(v, n), word_make(0, word_acquired(w), word_failures(w), AVAILABLE));
        }
        return;
    }
}

/* Put a record at the end of its group. Under the lock. */
static inline void group_join(delivery_view *v, int64_t offset, uint32_t number) {
    delivery_slot *slot = &v->slots[number];
    uint64_t w = word_get(view_word(v, offset));
    view_link(v, offset)->slot = number + 1;
    view_link(v, offset)->next = 0;
    if (slot->head == 0) {
        slot->head = slot->tail = offset + 1;
        if (word_visible(w) == VISIBLE_PARKED) {
            view_lower(v, offset, 0);
            word_put(view_word(v, offset), word_make(0, word_acquired(w), word_failures(w), AVAILABLE));
        }
        return;
    }
    view_link(v, slot->tail - 1)->next = offset + 1 - slot->tail;
    slot->tail = offset + 1;
    view_touch(v, offset);
    if (word_state(w) == AVAILABLE)
        word_put(view_word(v, offset), word_make(VISIBLE_PARKED, word_acquired(w), word_failures(w), AVAILABLE));
}

/* Whoever had the lock died in the middle of a change of several stores: make what it may have left half done again
 * from the words. Under the lock, all chunks mapped. */
static inline void view_rebuild(delivery_view *v) {
    delivery_control *c = v->control;
    int64_t o;
    if (v->slots) memset(v->slots, 0, sizeof(delivery_slot) * DELIVERY_SLOTS);
    for (o = c->start; o < c->frontier; o++)
        if (o == c->start || o % DELIVERY_CHUNK == 0) *view_chunk_dead(v, o) = 0;
    for (o = c->start; o < c->frontier; o++) {
        uint64_t w = word_get(view_word(v, o));
        if (word_dead(w)) ++*view_chunk_dead(v, o);
        if (v->slots && word_state(w) < ACKNOWLEDGED && view_link(v, o)->slot) group_join(v, o, view_link(v, o)->slot - 1);
    }
    c->dirty = 0;
}

/* --- claiming -------------------------------------------------------------------------------------------------- */

typedef struct { int64_t offset; uint64_t word, before; int64_t first_ms; } delivery_claim; /* the word after and before the claim */

/* Acquire the record, unless it was acknowledged just now; only what is in flight may change without the lock. */
static inline int claim_one(uint64_t *p, uint64_t w, int64_t offset, int64_t until, delivery_claim *out) {
    uint64_t next = word_acquire(w, until);
    if (word_state(w) == AVAILABLE) word_put(p, next);
    else if (!word_cas(p, w, next)) return 0;
    out->offset = offset;
    out->word = next;
    out->before = w;
    return 1;
}

/* One look over the blocks for `view_claim`; `process` not 0: blocks in which another one is at work are left out. */
static inline int64_t view_claim_pass(delivery_view *v, int64_t now, int64_t until, int64_t wanted, uint32_t process,
                                      int polite, delivery_claim *out, int64_t taken, int *skipped) {
    delivery_control *c = v->control;
    uint64_t bound = (uint64_t)(now + 1) << VISIBLE_SHIFT;
    int64_t offset = c->start;
    while (offset < c->frontier && taken < wanted) {
        int64_t chunk_end = ((offset >> DELIVERY_CHUNK_BITS) + 1) << DELIVERY_CHUNK_BITS;
        uint64_t chunk_least = UINT64_MAX;
        int whole = 1;
        if (*view_chunk_minimum(v, offset) >= bound) { offset = chunk_end; continue; }
        if (chunk_end > c->frontier) chunk_end = c->frontier;
        while (offset < chunk_end) {
            int64_t block_end = (offset / DELIVERY_BLOCK + 1) * DELIVERY_BLOCK;
            uint64_t *minimum = view_minimum(v, offset), least = UINT64_MAX;
            int64_t from = offset, at = offset;
            if (block_end > chunk_end) block_end = chunk_end;
            if (*minimum >= bound) {
                if (*minimum < chunk_least) chunk_least = *minimum;
                offset = block_end;
                continue;
            }
            if (taken == wanted) { whole = 0; break; }
            if (polite && owner_other(*view_owner(v, offset), now, process)) {
                *skipped = 1;
                chunk_least = 0;
                offset = block_end;
                continue;
            }
            *view_owner(v, offset) = owner_now(now, process);
            uint64_t *words = view_word(v, from) - from;
            for (; at < block_end && taken < wanted; at++) {
                uint64_t w = word_get(words + at);
                if (w < bound) {
                    if (v->slots) {
                        delivery_slot *slot = &v->slots[view_link(v, at)->slot - 1];
                        if (slot->head != at + 1) { /* in flight behind its head, and run out: it waits for the head again */
                            word_put(words + at, word_make(VISIBLE_PARKED, word_acquired(w), word_failures(w) + (word_failures(w) < MARKED - 1), AVAILABLE));
                            continue;
                        }
                    }
                    w = claim_one(words + at, w, at, until, out + taken) ? out[taken++].word : word_get(words + at);
                }
                if (w < least) least = w;
            }
            view_touch(v, at - 1);
            if (at < block_end) { whole = 0; break; }
            least &= ~(((uint64_t)1 << VISIBLE_SHIFT) - 1);
            word_put(minimum, least);
            if (least < chunk_least) chunk_least = least;
            offset = block_end;
        }
        if (!whole) break;
        word_put(view_chunk_minimum(v, chunk_end - 1), chunk_least);
    }
    return taken;
}

/* Acquire up to `wanted` records, the earliest first (in ordered groups: the heads of groups first). Under the lock; the
 * chunks from start to frontier are mapped. */
static inline int64_t view_claim(delivery_view *v, int64_t now, int64_t until, int64_t wanted, uint32_t process,
                                 delivery_claim *out) {
    uint64_t bound = (uint64_t)(now + 1) << VISIBLE_SHIFT;
    int skipped = 0;
    int64_t taken = view_claim_pass(v, now, until, wanted, process, v->slots == NULL, out, 0, &skipped);
    if (skipped && taken == 0) taken = view_claim_pass(v, now, until, wanted, process, 0, out, taken, &skipped);
    /* too few heads of groups: the records behind them as well, the nearest first */
    for (int64_t i = 0; v->slots && i < taken && taken < wanted; i++) {
        int64_t n = out[i].offset;
        uint32_t step;
        while ((step = view_link(v, n)->next) != 0) {
            uint64_t w;
            n += step;
            w = word_get(view_word(v, n));
            if (word_state(w) >= ACKNOWLEDGED) continue;
            view_lower(v, n, until);
            if ((w < bound || word_visible(w) == VISIBLE_PARKED) && claim_one(view_word(v, n), w, n, until, out + taken)) {
                taken++;
                view_touch(v, n);
            }
            break;
        }
    }
    v->control->acquisitions += taken;
    return taken;
}

/* Count what was claimed and handed out; when a message of it is to be timed, its place among them, else -1. */
static inline int64_t claims_count(metrics_share *m, const delivery_claim *claims, int64_t n, int64_t handed_out, unsigned tick) {
    int64_t again = 0, timed_out = 0;
    if (!m || n == 0) return -1;
    for (int64_t i = 0; i < n; i++) {
        again += word_acquired(claims[i].word) > 1;
        timed_out += word_state(claims[i].before) == ACQUIRED;
    }
    metrics_add(&m->receives, 1);
    metrics_add(&m->received, handed_out);
    if (again) metrics_add(&m->redelivered, again);
    if (timed_out) metrics_add(&m->timed_out, timed_out);
    if (handed_out == 0 || (handed_out < METRICS_SAMPLE && tick % METRICS_SAMPLE)) return -1;
    metrics_observe_shared(&m->receive_records, handed_out, handed_out < METRICS_SAMPLE ? METRICS_SAMPLE : 1);
    return (tick * 40503u >> 4) % handed_out; /* any of them: the first is no example of what waits behind it */
}

static inline void settle_count(metrics_share *m, int action) {
    if (!m) return;
    if (action == FAIL) metrics_add(&m->negative, 1);
    else if (action == RELEASE) metrics_add(&m->released, 1);
    else if (action == RENEW) metrics_add(&m->extended, 1);
}

/* Move the start over what is settled for good, at most `most` records. Under the lock. */
static inline void view_advance(delivery_view *v, int64_t most) {
    delivery_control *c = v->control;
    int64_t at = c->start, end = c->frontier < at + most ? c->frontier : at + most;
    for (; at < end; at++) {
        uint64_t w = word_get(view_word(v, at));
        if (word_state(w) < ACKNOWLEDGED || word_dead(w)) break;
    }
    if (at != c->start) word_put((uint64_t *)&c->start, at);
}

/* No record becomes visible before this (a lower bound); VISIBLE_NEVER when none ever will by itself. */
static inline int64_t view_next_visible(delivery_view *v) {
    delivery_control *c = v->control;
    uint64_t least = UINT64_MAX;
    if (c->start >= c->frontier) return VISIBLE_NEVER;
    for (int64_t n = c->start >> DELIVERY_CHUNK_BITS; n <= (c->frontier - 1) >> DELIVERY_CHUNK_BITS; n++)
        if (c->minima[n % DELIVERY_RING] < least) least = c->minima[n % DELIVERY_RING];
    return word_visible(least);
}

typedef struct { int64_t ready, in_flight, delayed, parked, dead, oldest; } delivery_counts;

/* Exact counts. `oldest`: the first unsettled offset, or -1. Chunks in which all is settled are not looked into. Under
 * the lock. */
static inline void view_count(delivery_view *v, int64_t now, delivery_counts *n) {
    delivery_control *c = v->control;
    uint64_t bound = (uint64_t)(now + 1) << VISIBLE_SHIFT, settled = (uint64_t)(VISIBLE_PARKED + 1) << VISIBLE_SHIFT;
    int64_t end = c->touched < c->frontier ? c->touched : c->frontier, at = c->start;
    memset(n, 0, sizeof(*n));
    n->oldest = -1;
    while (at < end) {
        int64_t chunk_end = ((at >> DELIVERY_CHUNK_BITS) + 1) << DELIVERY_CHUNK_BITS;
        int whole = chunk_end <= end, open = 0;
        n->dead += *view_chunk_dead(v, at);
        if (*view_chunk_minimum(v, at) >= settled) { at = chunk_end; continue; }
        if (chunk_end > end) chunk_end = end;
        for (; at < chunk_end; at++) {
            uint64_t w = word_get(view_word(v, at));
            if (word_state(w) >= ACKNOWLEDGED) continue;
            open = 1;
            if (n->oldest < 0) n->oldest = at;
            if (w < bound) n->ready++;
            else if (word_visible(w) == VISIBLE_PARKED) n->parked++;
            else if (word_state(w) == ACQUIRED) n->in_flight++;
            else n->delayed++;
        }
        if (whole && !open) word_put(view_chunk_minimum(v, chunk_end - 1), settled);
    }
    if (c->frontier > at) {
        if (n->oldest < 0) n->oldest = at;
        n->ready += c->frontier - at;
    }
}

#endif
