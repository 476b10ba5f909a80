/* The control file of a partition and the wake words of a directory: layout, publication, locks.
 *
 * Layout of `penstock.control` (16 KiB, native byte order: it never leaves the machine it lives on):
 *   0     magic "PNSTCTL1", version, flags, incarnation, boot id
 *   64    writer lock      128  sync lock
 *   192   bytes allocated to the active log, index and time index
 *   256   sequence: its low bit names the published slot
 *   320   slot 0           448  slot 1
 *   576   bytes before the active segment, counted where `full_policy` needs them, and of which segments
 *   1024  checkpoint 0     1536 checkpoint 1   (a slot as of the last fsync, with its checksum)
 *   2048  the newest producers, see `producers.h`
 *
 * Invariants: slots change only under the writer lock and only the idle one; `sequence` is the only publication.
 * Crash policy: a writer killed anywhere leaves the published slot whole; the next owner of the lock carries on.
 * Lock order: directory open lock, partition file lock, sync lock, writer lock. None is taken while holding the GIL
 * unless it is free at once. */
#ifndef PENSTOCK_CONTROL_H
#define PENSTOCK_CONTROL_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__) && !defined(PENSTOCK_PORTABLE)
#define PENSTOCK_HAVE_FUTEX 1
#define PENSTOCK_HAVE_ROBUST 1
#include <linux/futex.h>
#include <sys/syscall.h>
#else
#define PENSTOCK_HAVE_FUTEX 0
#define PENSTOCK_HAVE_ROBUST 0
#endif

#define PENSTOCK_CONTROL_MAGIC "PNSTCTL1"
#define PENSTOCK_CONTROL_VERSION 2
#define PENSTOCK_CONTROL_SIZE 16384
#define PENSTOCK_FLAG_DELETED 1
#define PENSTOCK_FLAG_TRANSACTIONS 2 /* there is a table of open transactions beside this file */
#define PRODUCER_SETS 16
#define PRODUCER_WAYS 7
#define PRODUCER_BATCHES 5
#define LOCK_TRIES 32
#define PENSTOCK_BELLS_SIZE 65536
#define PENSTOCK_BELL_COUNT 1024

typedef struct {
    int64_t log_end_offset;
    int64_t log_start_offset;
    int64_t active_base_offset;
    int64_t end_position; /* in the active segment */
    int64_t index_entries;
    int64_t time_index_entries;
    int64_t bytes_since_index;
    int64_t max_timestamp_ms; /* of the active segment; -1 when empty */
    int64_t max_timestamp_offset;
    int64_t first_timestamp_ms; /* of the active segment's first batch; -1 when empty */
    int64_t noted_ms; /* of the batch that was stored last, if a producer numbered it: its newest timestamp */
    int64_t generation; /* changes with the list of segments */
    int64_t last_indexed_timestamp_ms;
    int64_t noted_producer; /* its producer's id + 1; 0: none */
    int64_t noted_offset;
    int64_t noted_sequence; /* epoch << 32 | first sequence */
} control_slot; /* 128 bytes */

typedef struct {
    control_slot slot;
    uint64_t checksum;
} control_checkpoint;

typedef struct {
    int64_t base_offset; /* -1: none */
    uint32_t base_sequence, last_sequence;
} producer_batch;

typedef struct {
    int64_t key; /* producer id + 1; 0: free */
    int64_t last_ms, last_offset;
    int32_t epoch;
    uint32_t last_sequence;
    producer_batch batches[PRODUCER_BATCHES]; /* of this epoch, in no order */
    int64_t reserved[2];
} producer_entry;

typedef struct {
    char magic[8];
    uint32_t version;
    uint32_t flags;
    uint64_t incarnation;
    char boot_id[40];
    union { pthread_mutex_t mutex; char pad[64]; } writer_lock;
    union { pthread_mutex_t mutex; char pad[64]; } sync_lock;
    int64_t allocated_log;
    int64_t allocated_index;
    int64_t allocated_time_index;
    int64_t synced_offset; /* everything below is on the disk */
    int64_t pending_appends; /* appends that will want a sync, now on their way */
    int64_t last_group;      /* records that the last sync was for */
    int64_t last_sync_ns;
    uint32_t sync_word; /* changes whenever a sync ended; who waits for one sleeps on it */
    char pad0[4];
    uint64_t sequence;
    char pad1[56];
    control_slot slots[2];
    int64_t counted_generation; /* + 1: of the segments that were counted; 0: none */
    int64_t counted_start;      /* the log start then */
    int64_t counted_bytes;      /* with `end_position`: the bytes of the batches from there on */
    char pad2[1024 - 600];
    union { control_checkpoint value; char pad[512]; } checkpoints[2];
    producer_entry producers[PRODUCER_SETS * PRODUCER_WAYS];
} control_file;

_Static_assert(sizeof(control_slot) == 128, "slot size");
_Static_assert(offsetof(control_file, writer_lock) == 64, "writer lock");
_Static_assert(offsetof(control_file, sequence) == 256, "sequence");
_Static_assert(offsetof(control_file, slots) == 320, "slots");
_Static_assert(offsetof(control_file, checkpoints) == 1024, "checkpoints");
_Static_assert(sizeof(control_file) == PENSTOCK_CONTROL_SIZE, "control file");

/* --- publication ----------------------------------------------------------------------------------------------- */

static inline control_slot *control_published(control_file *c) {
    return &c->slots[__atomic_load_n(&c->sequence, __ATOMIC_ACQUIRE) & 1];
}

/* A whole slot as some writer published it; safe against any writer in any process. */
static inline void control_snapshot(control_file *c, control_slot *out) {
    uint64_t before, after;
    do {
        before = __atomic_load_n(&c->sequence, __ATOMIC_ACQUIRE);
        memcpy(out, &c->slots[before & 1], sizeof(*out));
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        after = __atomic_load_n(&c->sequence, __ATOMIC_ACQUIRE);
    } while (before != after);
}

/* Requires the writer lock. */
static inline void control_publish(control_file *c, const control_slot *next) {
    uint64_t sequence = __atomic_load_n(&c->sequence, __ATOMIC_RELAXED);
    memcpy(&c->slots[(sequence + 1) & 1], next, sizeof(*next));
    __atomic_store_n(&c->sequence, sequence + 1, __ATOMIC_RELEASE);
}

static inline uint64_t control_checksum(const control_slot *slot) {
    const unsigned char *p = (const unsigned char *)slot;
    uint64_t hash = 1469598103934665603ull;
    for (size_t i = 0; i < sizeof(*slot); i++) hash = (hash ^ p[i]) * 1099511628211ull;
    return hash;
}

static inline void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* --- locks ----------------------------------------------------------------------------------------------------- */

static inline int lock_init(pthread_mutex_t *m) {
    pthread_mutexattr_t attr;
    int rc = pthread_mutexattr_init(&attr);
    if (rc) return rc;
    rc = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
#if PENSTOCK_HAVE_ROBUST
    if (!rc) rc = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
#endif
    if (!rc) rc = pthread_mutex_init(m, &attr);
    pthread_mutexattr_destroy(&attr);
    return rc;
}

/* Where there is no robust mutex, a file lock taken on a descriptor of this handle's own keeps other processes out
 * (the kernel drops it when its owner dies) and a mutex of this process keeps other threads out. */
typedef struct {
    pthread_mutex_t *shared;
    pthread_mutex_t local;
    int fd;
} lock_handle;

static inline int lock_handle_init(lock_handle *h, pthread_mutex_t *shared, int fd) {
    h->shared = shared;
    h->fd = fd;
    return pthread_mutex_init(&h->local, NULL);
}

/* 0 taken, EOWNERDEAD taken from a dead owner, EBUSY (only when !wait), other: errno */
static inline int lock_acquire(lock_handle *h, int wait) {
#if PENSTOCK_HAVE_ROBUST
    int rc = pthread_mutex_trylock(h->shared);
    for (int i = 0; wait && rc == EBUSY && i < LOCK_TRIES; i++) { /* most are held for a microsecond; a sleep costs tens */
        for (int pause = 0; pause < 16; pause++) cpu_relax();
        rc = pthread_mutex_trylock(h->shared);
    }
    if (wait && rc == EBUSY) rc = pthread_mutex_lock(h->shared);
    if (rc == EOWNERDEAD) pthread_mutex_consistent(h->shared);
    return rc;
#else
    int rc = wait ? pthread_mutex_lock(&h->local) : pthread_mutex_trylock(&h->local);
    if (rc) return rc;
    do rc = flock(h->fd, LOCK_EX | (wait ? 0 : LOCK_NB));
    while (rc && errno == EINTR);
    if (rc) {
        rc = errno == EWOULDBLOCK ? EBUSY : errno;
        pthread_mutex_unlock(&h->local);
        return rc;
    }
    return 0;
#endif
}

static inline void lock_release(lock_handle *h) {
#if PENSTOCK_HAVE_ROBUST
    pthread_mutex_unlock(h->shared);
#else
    flock(h->fd, LOCK_UN);
    pthread_mutex_unlock(&h->local);
#endif
}

/* --- words to sleep on ------------------------------------------------------------------------------------------ */

static inline int64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static inline void word_wake(uint32_t *word) {
#if PENSTOCK_HAVE_FUTEX
    syscall(SYS_futex, word, FUTEX_WAKE, 0x7fffffff, NULL, NULL, 0);
#else
    (void)word;
#endif
}

/* Sleep while the word is `seen`, for at most `timeout_ns`. 0 it changed (or may have), ETIMEDOUT, EINTR. */
static inline int word_wait(uint32_t *word, uint32_t seen, int64_t timeout_ns) {
#if PENSTOCK_HAVE_FUTEX
    struct timespec limit = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    if (syscall(SYS_futex, word, FUTEX_WAIT, seen, &limit, NULL, 0) == 0) return 0;
    return errno == EAGAIN ? 0 : errno;
#else
    struct timespec nap = {0, 20000};
    int64_t start = monotonic_ns();
    for (;;) {
        if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != seen) return 0;
        if (monotonic_ns() - start >= timeout_ns) return ETIMEDOUT;
        if (nanosleep(&nap, NULL)) return errno;
        if (nap.tv_nsec < 2000000) nap.tv_nsec += nap.tv_nsec / 4;
    }
#endif
}

/* --- bells: wake words shared by every process of a directory ------------------------------------------------- */

#define BELL_WATCHED 1 /* somebody looks at the value, or is about to sleep */
#define BELL_ASLEEP 2  /* somebody may sleep: only then is a ring a system call */

typedef struct {
    uint32_t value;
    uint32_t armed;
    char pad[56];
} bell_word;

static inline uint32_t bell_arm(bell_word *b) {
    uint32_t seen = __atomic_load_n(&b->value, __ATOMIC_ACQUIRE), free = 0;
    __atomic_compare_exchange_n(&b->armed, &free, BELL_WATCHED, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return seen;
}

/* Disarms before the value changes: who is disarmed finds another value than it saw. Who says that it sleeps between the
 * two is found by the second look; who says so later is kept awake by the kernel, which compares the value. */
static inline void bell_ring_always(bell_word *b) {
    uint32_t was = __atomic_exchange_n(&b->armed, 0, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&b->value, 1, __ATOMIC_SEQ_CST);
    if (was == BELL_ASLEEP || __atomic_load_n(&b->armed, __ATOMIC_SEQ_CST) == BELL_ASLEEP) word_wake(&b->value);
}

/* After a publication. Costs one load when nobody waits, two atomic instructions while a reader waits awake; a waiter that
 * was killed costs one needless wake. */
static inline void bell_ring(bell_word *b) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&b->armed, __ATOMIC_RELAXED)) bell_ring_always(b);
}

/* Sleep until the bell rings after `seen`, or `timeout_ns` passed, spinning for the first `spin_ns`.
 * 0 rung, ETIMEDOUT, EINTR. */
static inline int bell_wait(bell_word *b, uint32_t seen, int64_t timeout_ns, int64_t spin_ns) {
    int64_t start = monotonic_ns();
    if (spin_ns > timeout_ns) spin_ns = timeout_ns;
    while (spin_ns > 0) {
        for (int i = 0; i < 32; i++) {
            if (__atomic_load_n(&b->value, __ATOMIC_ACQUIRE) != seen) return 0;
            cpu_relax();
        }
        if (monotonic_ns() - start >= spin_ns) break;
    }
    __atomic_store_n(&b->armed, BELL_ASLEEP, __ATOMIC_SEQ_CST);
    return word_wait(&b->value, seen, timeout_ns);
}

/* --- files ----------------------------------------------------------------------------------------------------- */

/* Give [0, size) of the file real blocks, so that writing through the map cannot fail later. 0 or errno. */
static inline int file_reserve(int fd, int64_t from, int64_t size) {
#if defined(__linux__)
    int rc;
    do rc = posix_fallocate(fd, from, size - from);
    while (rc == EINTR);
    return rc;
#else
    fstore_t store = {F_ALLOCATEALL, F_PEOFPOSMODE, 0, size - from, 0};
    if (fcntl(fd, F_PREALLOCATE, &store) == -1) return errno;
    return ftruncate(fd, size) ? errno : 0;
#endif
}

/* Before a sync: let those join who are about to, for at most half the time that the last sync took. A lone writer
 * never waits: nobody else is pending and the last group was one. */
static inline void sync_gather(control_file *c) {
    int64_t limit = c->last_sync_ns / 2, start = monotonic_ns();
    if (limit > 5000000) limit = 5000000;
    while (monotonic_ns() - start < limit) {
        int64_t waiting = control_published(c)->log_end_offset - c->synced_offset;
        if (__atomic_load_n(&c->pending_appends, __ATOMIC_ACQUIRE) <= 0 && waiting >= c->last_group) return;
        sched_yield();
    }
}

/* Let everybody who waits for a sync look again. */
static inline void sync_done(control_file *c) {
    __atomic_fetch_add(&c->sync_word, 1, __ATOMIC_SEQ_CST);
    word_wake(&c->sync_word);
}

static inline void pending_add(control_file *c, int64_t change) {
    __atomic_fetch_add(&c->pending_appends, change, __ATOMIC_ACQ_REL);
}

static inline int file_sync(int fd) {
#if defined(__APPLE__)
    return fcntl(fd, F_FULLFSYNC) == -1 ? errno : 0;
#else
    return fdatasync(fd) ? errno : 0;
#endif
}

#endif
