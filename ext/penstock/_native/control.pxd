from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "control.h" nogil:
    ctypedef struct pthread_mutex_t:
        pass

    ctypedef struct control_slot:
        int64_t log_end_offset
        int64_t log_start_offset
        int64_t active_base_offset
        int64_t end_position
        int64_t index_entries
        int64_t time_index_entries
        int64_t bytes_since_index
        int64_t max_timestamp_ms
        int64_t max_timestamp_offset
        int64_t first_timestamp_ms
        int64_t generation
        int64_t last_indexed_timestamp_ms

    ctypedef struct control_checkpoint:
        control_slot slot
        uint64_t checksum

    ctypedef union checkpoint_cell:
        control_checkpoint value

    ctypedef union lock_cell:
        pthread_mutex_t mutex

    ctypedef struct control_file:
        char magic[8]
        uint32_t version
        uint32_t flags
        uint64_t incarnation
        char boot_id[40]
        lock_cell writer_lock
        lock_cell sync_lock
        int64_t allocated_log
        int64_t allocated_index
        int64_t allocated_time_index
        int64_t synced_offset
        int64_t pending_appends
        int64_t last_group
        int64_t last_sync_ns
        uint32_t sync_word
        control_slot slots[2]
        int64_t counted_generation
        int64_t counted_start
        int64_t counted_bytes
        checkpoint_cell checkpoints[2]

    ctypedef struct lock_handle:
        pass

    ctypedef struct bell_word:
        uint32_t value
        uint32_t armed

    const char *PENSTOCK_CONTROL_MAGIC
    enum:
        PENSTOCK_CONTROL_VERSION
        PENSTOCK_CONTROL_SIZE
        PENSTOCK_FLAG_DELETED
        PENSTOCK_FLAG_TRANSACTIONS
        PENSTOCK_HAVE_ROBUST
        PENSTOCK_BELLS_SIZE
        PENSTOCK_BELL_COUNT
        PENSTOCK_HAVE_FUTEX

    control_slot *control_published(control_file *c)
    void control_snapshot(control_file *c, control_slot *out)
    void control_publish(control_file *c, const control_slot *next_slot)
    uint64_t control_checksum(const control_slot *slot)
    int lock_init(pthread_mutex_t *m)
    int lock_handle_init(lock_handle *h, pthread_mutex_t *shared, int fd)
    int lock_acquire(lock_handle *h, int wait)
    void lock_release(lock_handle *h)
    uint32_t bell_arm(bell_word *b)
    void bell_ring(bell_word *b)
    void bell_ring_always(bell_word *b)
    int bell_wait(bell_word *b, uint32_t seen, int64_t timeout_ns, int64_t spin_ns)
    int word_wait(uint32_t *word, uint32_t seen, int64_t timeout_ns)
    void sync_done(control_file *c)
    int file_reserve(int fd, int64_t start, int64_t size)
    int64_t monotonic_ns()
    void sync_gather(control_file *c)
    void pending_add(control_file *c, int64_t change)
    int file_sync(int fd)
