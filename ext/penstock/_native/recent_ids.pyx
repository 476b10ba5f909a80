"""Ids that were added lately, in a mapped file that all processes of a database share: tells at once which are new.

The file holds a window: when it began, no id above its floor was there, and each id that was added since has its bits set
(a Bloom filter, in blocks of a cache line). So an id above the floor that lacks a bit is new; of all others the window
knows nothing. 8 words come first: the window's number (0: none yet; odd: being begun), how many ids were added, the floor
in two words, the rest unused; then the blocks.

Process safety: a window is begun, and ids are added, by who holds the database's write lock, ids before they are
committed. Readers take no lock: they look at the window's number before and after. Crash policy: a window lasts no longer
than the processes that use it; each that opens the file begins one. A file that was deleted answers nothing any more.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memset

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from posix.stat cimport fstat, struct_stat

from penstock._native.control cimport file_reserve
from penstock._native.mapping cimport Mapping

from penstock._native.mapping import os_error
from penstock.errors import InvalidArgumentError


cdef extern from *:
    """
    static inline uint64_t ids_load(uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline uint64_t ids_peek(uint64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void ids_store(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
    static inline void ids_set(uint64_t *p, uint64_t bits) { __atomic_fetch_or(p, bits, __ATOMIC_SEQ_CST); }
    static inline void ids_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
    static inline uint64_t ids_word(const char *p) {
        uint64_t v = 0;
        for (int i = 0; i < 8; i++) v = v << 8 | (unsigned char)p[i];
        return v;
    }
    static inline uint64_t ids_mixed(uint64_t v) {
        v ^= v >> 33; v *= 0xff51afd7ed558ccdULL; v ^= v >> 33; v *= 0xc4ceb9fe1a85ec53ULL; return v ^ v >> 33;
    }
    static inline int ids_digit(char c) {
        if (c >= '0' && c <= '9') return c - '0';
        c |= 32;
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    }
    """
    uint64_t ids_load(uint64_t *p) nogil
    uint64_t ids_peek(uint64_t *p) nogil
    void ids_store(uint64_t *p, uint64_t v) nogil
    void ids_set(uint64_t *p, uint64_t bits) nogil
    void ids_fence() nogil
    uint64_t ids_word(const char *p) nogil
    uint64_t ids_mixed(uint64_t v) nogil
    int ids_digit(char c) nogil

cdef enum:
    NUMBER = 0
    COUNT = 1
    FLOOR = 2
    HEADER_WORDS = 8
    BLOCK_WORDS = 8
    BLOCKS = 4096
    PROBES = 6
    KEY_BYTES = 16
    FILE_BYTES = 8 * (HEADER_WORDS + BLOCKS * BLOCK_WORDS)
    IDS_MAX = 131072  # 16 bits each: one new id in some hundreds is taken for one that may be known

IDS_MAX_IN_WINDOW = IDS_MAX
WINDOW_BYTES = FILE_BYTES


def id_key(str identity not None):
    """What is kept of a message id: the 16 bytes of a UUID, the text of any other id."""
    cdef Py_ssize_t size = 0, at, done = 0
    cdef const char *text
    cdef char raw[KEY_BYTES]
    cdef int high, low
    if len(identity) != 36:
        return identity
    try:
        text = PyUnicode_AsUTF8AndSize(identity, &size)
    except UnicodeEncodeError:
        return identity
    if size != 36:
        return identity
    at = 0
    while at < 36:
        if at in (8, 13, 18, 23):
            if text[at] != c"-":
                return identity
            at += 1
            continue
        high, low = ids_digit(text[at]), ids_digit(text[at + 1])
        if high < 0 or low < 0:
            return identity
        raw[done] = <char>(high << 4 | low)
        done += 1
        at += 2
    return PyBytes_FromStringAndSize(raw, KEY_BYTES)


cdef class RecentIds:
    """`RecentIds(path)`: the window in a file, which is made when it does not exist. Ids are 16 bytes.

    Raises `DiskFullError`, `DataDirectoryError` or `OSError`.
    """

    cdef Mapping map
    cdef uint64_t *words

    def __init__(self, str path not None):
        cdef int rc
        self.map = Mapping(path, FILE_BYTES, True, True)
        if self.map.file_size() < FILE_BYTES:
            rc = file_reserve(self.map.fd, 0, FILE_BYTES)
            if rc:
                raise os_error(rc, path, "making")
        self.words = <uint64_t *>self.map.data

    cdef bint is_linked(self) noexcept:
        """Whether the file has its name still: else others look into another one."""
        cdef struct_stat found
        return fstat(self.map.fd, &found) == 0 and found.st_nlink > 0

    def begin(self, bytes floor not None):
        """A new window. The write lock is held, and no id above the floor is there."""
        cdef const char *raw = _checked(floor)
        cdef uint64_t number = ids_load(&self.words[NUMBER]) | 1
        ids_store(&self.words[NUMBER], number)
        ids_fence()
        memset(&self.words[COUNT], 0, FILE_BYTES - 8)
        self.words[FLOOR], self.words[FLOOR + 1] = ids_word(raw), ids_word(raw + 8)
        ids_store(&self.words[NUMBER], number + 1)

    def add(self, bytes key not None):
        """Add an id; False when a new window is needed instead. The write lock is held, the id is not committed yet."""
        cdef const char *raw = _checked(key)
        cdef uint64_t number = ids_load(&self.words[NUMBER]), bits
        cdef uint64_t *block
        cdef int probe
        if number == 0 or number & 1 or self.words[COUNT] >= IDS_MAX or not self.is_linked():
            return False
        block = self.block_of(raw, &bits)
        for probe in range(PROBES):
            ids_set(&block[(bits >> 6) & 7], <uint64_t>1 << (bits & 63))
            bits >>= 9
        self.words[COUNT] += 1
        return True

    def is_new(self, bytes key not None):
        """True: the id was never committed. False: it may have been."""
        cdef const char *raw = _checked(key)
        cdef uint64_t number = ids_load(&self.words[NUMBER]), high, low, bits
        cdef uint64_t *block
        cdef bint lacks = False
        cdef int probe
        if number == 0 or number & 1:
            return False
        high, low = ids_peek(&self.words[FLOOR]), ids_peek(&self.words[FLOOR + 1])
        if ids_word(raw) < high or (ids_word(raw) == high and ids_word(raw + 8) <= low):
            return False
        block = self.block_of(raw, &bits)
        for probe in range(PROBES):
            if not ids_peek(&block[(bits >> 6) & 7]) >> (bits & 63) & 1:
                lacks = True
                break
            bits >>= 9
        ids_fence()
        return lacks and ids_load(&self.words[NUMBER]) == number and self.is_linked()

    cdef uint64_t *block_of(self, const char *raw, uint64_t *bits) noexcept:
        """The block of an id, and in `bits` 9 bits for each probe."""
        cdef uint64_t mixed = ids_mixed(ids_word(raw) ^ ids_mixed(ids_word(raw + 8)))
        bits[0] = ids_mixed(mixed + <uint64_t>0x9E3779B97F4A7C15)
        return &self.words[HEADER_WORDS + (mixed % BLOCKS) * BLOCK_WORDS]


cdef const char *_checked(bytes key) except NULL:
    if PyBytes_GET_SIZE(key) != KEY_BYTES:
        raise InvalidArgumentError(f"an id of {len(key)} bytes; {KEY_BYTES} are needed")
    return PyBytes_AS_STRING(key)
