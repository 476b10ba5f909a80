from libc.stdint cimport int64_t, uint32_t, uint64_t

from penstock._native.control cimport lock_cell
from penstock._native.metrics cimport metrics_share


cdef extern from "delivery.h" nogil:
    enum:
        DELIVERY_CHUNK_BITS
        DELIVERY_CHUNK
        DELIVERY_BLOCK
        DELIVERY_RING
        DELIVERY_WORDS_AT
        DELIVERY_CHUNK_BYTES
        DELIVERY_SLOTS
        DELIVERY_FIRSTS_BYTES
        DELIVERY_CONTROL_BYTES
        CLOCK_SET_MS
        CLOCK_NOTED_MS
        VISIBLE_SHIFT
        COUNT_MAX
        MARKED
        AVAILABLE
        ACQUIRED
        ACKNOWLEDGED
        ARCHIVED
        ACCEPT
        RELEASE
        REJECT
        RENEW
        FAIL
        UNDO
    const char *DELIVERY_MAGIC
    const uint64_t WORD_STALE
    const int64_t VISIBLE_NEVER
    const int64_t VISIBLE_PARKED
    const int64_t VISIBLE_MAX

    ctypedef struct delivery_control:
        char magic[8]
        uint64_t incarnation
        char boot_id[40]
        lock_cell lock
        int64_t start
        int64_t frontier
        int64_t touched
        int64_t flags
        int64_t dirty
        int64_t acquisitions
        int64_t acknowledgements
        int64_t archivals
        int64_t claimed_ms

    ctypedef struct delivery_link:
        uint32_t next
        uint32_t slot

    ctypedef struct delivery_slot:
        int64_t head
        int64_t tail

    ctypedef struct delivery_view:
        delivery_control *control
        char **chunks
        char **links
        delivery_slot *slots
        int64_t first
        int64_t count

    ctypedef struct delivery_claim:
        int64_t offset
        uint64_t word
        uint64_t before
        int64_t first_ms

    ctypedef struct delivery_counts:
        int64_t ready
        int64_t in_flight
        int64_t delayed
        int64_t parked
        int64_t dead
        int64_t oldest

    uint64_t *view_word(delivery_view *v, int64_t offset)
    bint view_mapped(const delivery_view *v, int64_t offset)
    int view_accept(delivery_view *v, int64_t offset, int64_t receipt)
    uint64_t *view_minimum(delivery_view *v, int64_t offset)
    uint64_t *view_chunk_minimum(delivery_view *v, int64_t offset)
    int64_t *view_chunk_dead(delivery_view *v, int64_t offset)
    delivery_link *view_link(delivery_view *v, int64_t offset)
    uint64_t word_get(const uint64_t *p)
    void word_put(uint64_t *p, uint64_t w)
    int word_cas(uint64_t *p, uint64_t old, uint64_t after)
    int64_t claims_count(metrics_share *m, const delivery_claim *claims, int64_t n, int64_t handed_out, unsigned int tick)
    void settle_count(metrics_share *m, int action)
    void count_up(int64_t *p, int64_t n)
    int word_state(uint64_t w)
    int word_dead(uint64_t w)
    int64_t word_visible(uint64_t w)
    int64_t word_acquired(uint64_t w)
    int64_t word_failures(uint64_t w)
    uint64_t word_make(int64_t visible, int64_t acquired, int64_t failures, int state)
    uint64_t word_acquire(uint64_t w, int64_t until)
    uint64_t word_settle(uint64_t w, int64_t receipt, int action, int64_t visible)
    void view_lower(delivery_view *v, int64_t offset, int64_t visible)
    void view_clock_back(delivery_view *v, int64_t now, int64_t back, int64_t lock)
    void view_touch(delivery_view *v, int64_t offset)
    void group_advance(delivery_view *v, int64_t offset)
    void group_join(delivery_view *v, int64_t offset, uint32_t number)
    void view_rebuild(delivery_view *v)
    int64_t view_claim(delivery_view *v, int64_t now, int64_t until, int64_t wanted, uint32_t process, delivery_claim *out)
    void view_advance(delivery_view *v, int64_t most)
    int64_t view_next_visible(delivery_view *v)
    void view_count(delivery_view *v, int64_t now, delivery_counts *n)
