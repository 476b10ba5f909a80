"""Mapped 64-bit words shared by all processes of a directory: committed offsets, heartbeats, epochs.

A word is read and written whole, by one atomic instruction; what was stored survives the process at once, and the machine
once it is synced. Thread and process safety: any. Crash policy: a word is the old or the new one, never half of both.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EBUSY

from penstock._native.control cimport (
    file_reserve,
    file_sync,
    lock_acquire,
    lock_handle_init,
    lock_init,
    lock_release,
    pthread_mutex_t,
)
from penstock._native.mapping cimport Mapping

from penstock._native.mapping import os_error
from penstock.errors import InvalidArgumentError


cdef extern from *:
    """
    static inline int64_t word_load(int64_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
    static inline void word_store(int64_t *p, int64_t v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
    static inline int64_t word_add(int64_t *p, int64_t v) { return __atomic_add_fetch(p, v, __ATOMIC_SEQ_CST); }
    static inline int word_swap(int64_t *p, int64_t old, int64_t next) {
        return __atomic_compare_exchange_n(p, &old, next, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    """
    int64_t word_load(int64_t *p) nogil
    void word_store(int64_t *p, int64_t v) nogil
    int64_t word_add(int64_t *p, int64_t v) nogil
    int word_swap(int64_t *p, int64_t old, int64_t next) nogil

cdef enum:
    OFFSET_BITS = 52
    WORDS_MAX = 1 << 23
    STEP_BYTES = 1 << 16

cdef int64_t _offset_max = (<int64_t>1 << OFFSET_BITS) - 2
OFFSET_MAX = _offset_max


cdef class WordTable:
    """`WordTable(path, words_max=2**23, step_bytes=65536)`: words numbered from 0, zero at first.

    The file grows by steps, up to that many words; `reserve` before a word is used.
    """

    def __init__(self, str path not None, int64_t words_max=WORDS_MAX, int64_t step_bytes=STEP_BYTES):
        self.map = Mapping(path, words_max * 8, True, True)
        self.words_max, self.step_bytes = words_max, step_bytes
        self.reserved = self.map.file_size() // 8

    def reserve(self, int64_t count):
        """Give the words below `count` room on the disk. Raises `DiskFullError`."""
        cdef int rc
        cdef int64_t size = (count * 8 + self.step_bytes - 1) // self.step_bytes * self.step_bytes
        if count <= self.reserved:
            return
        if count > self.words_max:
            raise InvalidArgumentError(f"{count} words are wanted in {self.map.path}; at most {self.words_max} fit")
        if size > self.map.file_size():
            rc = file_reserve(self.map.fd, 0, size)
            if rc:
                raise os_error(rc, self.map.path, "growing")
        self.reserved = size // 8

    cdef int64_t *at(self, int64_t number) noexcept:
        return <int64_t *>self.map.data + number

    cdef bint holds(self, int64_t number) noexcept:
        """Whether the word has room, as far as this process knows or can find out: another one may have made it."""
        if number >= self.reserved:
            self.reserved = max(self.reserved, self.map.size_or_zero() // 8)
        return 0 <= number < self.reserved

    cdef int64_t load(self, int64_t number) noexcept:
        return word_load(self.at(number)) if self.holds(number) else 0

    def get(self, int64_t number):
        """The word; 0 when it was never set."""
        return self.load(number)

    def set(self, int64_t number, int64_t value):
        """Store the word."""
        self.reserve(number + 1)
        word_store(self.at(number), value)
        self.written = True

    def add(self, int64_t number, int64_t value):
        """Add to the word; returns the sum."""
        self.reserve(number + 1)
        self.written = True
        return word_add(self.at(number), value)

    def swap(self, int64_t number, int64_t old, int64_t next):
        """Store `next` if the word is `old`; whether it was."""
        self.reserve(number + 1)
        self.written = True
        return bool(word_swap(self.at(number), old, next))

    def read_bytes(self, int64_t at, int64_t size):
        """A copy of `size` bytes from byte `at` on; fewer where the file ends before."""
        self.holds((at + size) // 8)
        size = max(min(size, self.reserved * 8 - at), 0)
        return PyBytes_FromStringAndSize(self.map.data + at, size)

    def write_bytes(self, int64_t at, bytes data not None):
        """Store bytes from byte `at` on. Raises `DiskFullError`."""
        self.reserve((at + len(data) + 7) // 8)
        memcpy(self.map.data + at, PyBytes_AS_STRING(data), len(data))
        self.written = True

    def sync(self):
        """What was stored before is on the disk when this returns."""
        cdef int rc, fd = self.map.fd
        self.written = False
        with nogil:
            rc = file_sync(fd)
        if rc:
            self.written = True
            raise os_error(rc, self.map.path, "syncing")


cdef enum:
    ABORTS = 1  # word 0: pairs in use; 1: aborted so far; then pairs of producer id (0: free) and first offset
    FIRST_PAIR = 2
    PAIRS_MAX = 1 << 16


cdef extern from "<errno.h>" nogil:
    int EOWNERDEAD


cdef class SharedMutex:
    """`SharedMutex(words, number, fresh)`: a lock among all threads and processes that costs no system call while it is
    free; its eight words begin at `number`. It is given back when its process dies.

    `fresh`: make it anew; nobody else may use it at that time. Use it as a context manager; not reentrant.
    """

    def __init__(self, WordTable words not None, int64_t number, bint fresh):
        cdef pthread_mutex_t *mutex
        words.reserve(number + 8)
        mutex = <pthread_mutex_t *>words.at(number)
        self.words = words
        if fresh:
            lock_init(mutex)
        lock_handle_init(&self.handle, mutex, words.map.fd)

    def __enter__(self):
        cdef int rc = lock_acquire(&self.handle, 0)
        if rc == EBUSY:
            with nogil:
                rc = lock_acquire(&self.handle, 1)
        if rc != 0 and rc != EOWNERDEAD:
            raise os_error(rc, self.words.map.path, "locking")
        return self

    def __exit__(self, *_):
        lock_release(&self.handle)


cdef class OpenTransactions(WordTable):
    """The transactions of one partition that are not decided, or whose marker is not in the log yet.

    Changes need the partition's writer lock; reading needs nothing. A first offset is a lower bound: the log's end when
    the transaction was about to store its first batch here.
    """

    cdef int64_t used(self) noexcept:
        return min(self.load(0), <int64_t>PAIRS_MAX)

    cpdef int begin(self, int64_t producer_id, int64_t first_offset) except -1:
        """The producer is about to store here; nothing changes when it did before."""
        cdef int64_t pair, free = self.used()
        if self.first_offset(producer_id) >= 0:
            return 0
        for pair in range(self.used()):
            if self.load(FIRST_PAIR + 2 * pair) == 0:
                free = pair
                break
        if free >= PAIRS_MAX:
            raise InvalidArgumentError(f"{PAIRS_MAX} transactions are open in {self.map.path}; no more are allowed")
        self.set(FIRST_PAIR + 2 * free + 1, first_offset)
        self.set(FIRST_PAIR + 2 * free, producer_id)
        if free >= self.load(0):
            self.set(0, free + 1)
        return 0

    cpdef int64_t first_offset(self, int64_t producer_id) noexcept:
        """First offset of the producer's open transaction, -1 when it has none."""
        cdef int64_t pair
        for pair in range(self.used()):
            if self.load(FIRST_PAIR + 2 * pair) == producer_id:
                return self.load(FIRST_PAIR + 2 * pair + 1)
        return -1

    cpdef int end(self, int64_t producer_id, bint aborted) except -1:
        """The producer's transaction is decided, and what readers need to know is stored."""
        cdef int64_t pair
        if aborted:
            self.add(ABORTS, 1)
        for pair in range(self.used()):
            if self.load(FIRST_PAIR + 2 * pair) == producer_id:
                self.set(FIRST_PAIR + 2 * pair, 0)
        pair = self.used()
        while pair > 0 and self.load(FIRST_PAIR + 2 * (pair - 1)) == 0:
            pair -= 1
        if pair < self.used():
            self.set(0, pair)
        return 0

    def least(self, int64_t end):
        """The least first offset of an open transaction, or `end`."""
        cdef int64_t pair, first
        for pair in range(self.used()):
            if self.load(FIRST_PAIR + 2 * pair):
                first = self.load(FIRST_PAIR + 2 * pair + 1)
                if first < end:
                    end = first
        return end

    @property
    def aborts(self):
        """How many transactions were aborted so far."""
        return self.load(ABORTS)


cdef class CommitTable(WordTable):
    """Committed offsets. A word is a claim (12 bits, changes with the owner) and an offset (52 bits).

    A commit swaps the word only if the claim is still its owner's, so one of a former owner, however late, changes
    nothing. (It would take 4,096 changes of the owner in between to be mistaken.)
    """

    def offset(self, int64_t cell):
        """The committed offset, -1 when there is none."""
        return (self.load(cell) & ((<int64_t>1 << OFFSET_BITS) - 1)) - 1

    def claim_of(self, int64_t cell):
        """The claim that may commit now."""
        return <int64_t>(<uint64_t>self.load(cell) >> OFFSET_BITS)

    def fence(self, int64_t cell):
        """Shut out whoever had the claim; returns the new one. The offset stays."""
        cdef int64_t old
        self.reserve(cell + 1)
        while True:
            old = self.load(cell)
            if word_swap(self.at(cell), old, <int64_t>(<uint64_t>old + (<uint64_t>1 << OFFSET_BITS))):
                self.written = True
                return self.claim_of(cell)

    def reset(self, int64_t cell, int64_t offset):
        """Shut out whoever had the claim and set the offset (-1: none)."""
        cdef int64_t old, claim
        if not -1 <= offset <= _offset_max:
            raise InvalidArgumentError(f"offset is {offset}; allowed is -1 to {OFFSET_MAX}")
        self.reserve(cell + 1)
        while True:
            old = self.load(cell)
            claim = <int64_t>(<uint64_t>old >> OFFSET_BITS) + 1
            if word_swap(self.at(cell), old, <int64_t>(<uint64_t>claim << OFFSET_BITS) | (offset + 1)):
                self.written = True
                return

    cdef int store(self, int64_t cell, int64_t claim, int64_t offset) noexcept:
        """1 stored, 2 it was the same already, 0 when the claim is not the owner's any more."""
        cdef int64_t old, next = <int64_t>(<uint64_t>claim << OFFSET_BITS) | (offset + 1)
        if not self.holds(cell):
            return 0
        while True:
            old = self.load(cell)
            if <int64_t>(<uint64_t>old >> OFFSET_BITS) != claim:
                return 0
            if old == next:
                return 2
            if word_swap(self.at(cell), old, next):
                self.written = True
                return 1

    def commit(self, int64_t cell, int64_t claim, int64_t offset):
        """Store the offset for the owner of `claim`; False when that is not the owner any more."""
        if not 0 <= offset <= _offset_max:
            raise InvalidArgumentError(f"offset is {offset}; allowed is 0 to {OFFSET_MAX}")
        return bool(self.store(cell, claim, offset))
