"""The files of a share group's delivery state in one partition, and its lock.

In the group's directory: `control` (lock, start, frontier, minima of chunks), `<20-digit first offset>.words` (one word
a record and the minima of blocks), for ordered groups `<...>.links` and `slots` (chains of the records of each group), and
`<...>.firsts` (when records that came back were received first), made for chunks that have such records.
Thread and process safety: any number of both. Changes are made under the group's lock, but for acknowledging, which is one
compare and swap. Crash policy: see `delivery.h`.
"""

from libc.errno cimport EBUSY
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from penstock._native.control cimport control_slot, control_snapshot, file_reserve, file_sync, lock_acquire, lock_handle_init, lock_init, lock_release
from penstock._native.delivery_view cimport *
from penstock._native.mapping cimport Mapping
from penstock._native.metrics cimport MetricsBlock, metrics_share
from penstock._native.partition cimport Partition

import os

from penstock._native.mapping import os_error
from penstock.errors import InvalidArgumentError


cdef extern from "<errno.h>" nogil:
    int EOWNERDEAD

cdef enum:
    RESERVE_WORDS = 8192


cdef class DeliveryFiles:
    """`DeliveryFiles(directory, log, incarnation, boot_id, ordered)`: opened under a file lock, see
    `penstock.queues.delivery_store`."""

    def __cinit__(self):
        self.view.chunks = NULL
        self.view.links = NULL

    def __init__(self, str directory not None, Partition log not None, uint64_t incarnation, str boot_id not None, bint ordered):
        cdef bytes boot = boot_id.encode("ascii")[:36]
        cdef control_slot slot
        self.directory = directory
        self.log = log
        self.ordered = ordered
        self.maps = []
        self.firsts = {}
        self.control_map = Mapping(f"{directory}/control", DELIVERY_CONTROL_BYTES, True, True)
        self._reserve_ring(0)
        self.control = <delivery_control *>self.control_map.data
        self.view.control = self.control
        if ordered:
            self.slots_map = Mapping(f"{directory}/slots", DELIVERY_SLOTS * sizeof(delivery_slot), True, True)
            if self.slots_map.file_size() < <int64_t>(DELIVERY_SLOTS * sizeof(delivery_slot)):
                self._reserve(self.slots_map, 0, DELIVERY_SLOTS * sizeof(delivery_slot))
            self.view.slots = <delivery_slot *>self.slots_map.data
        if memcmp(self.control.magic, DELIVERY_MAGIC, 8) != 0:
            memset(self.control, 0, 4096)
            control_snapshot(log.control, &slot)
            self.control.start = self.control.frontier = self.control.touched = slot.log_start_offset
            self._renew(incarnation, boot)
            memcpy(self.control.magic, DELIVERY_MAGIC, 8)
            self.fresh = True
        elif self.control.incarnation != incarnation:
            if memcmp(self.control.boot_id, <char *>boot, len(boot)) != 0:
                self.after_power_cut = True
            self._renew(incarnation, boot)
        lock_handle_init(&self.lock, &self.control.lock.mutex, self.control_map.fd)

    def count_in(self, MetricsBlock counters):
        """Count what this handle does there from now on; None: nowhere."""
        self.counters = counters
        self.metrics = NULL if counters is None else <metrics_share *>counters.data

    def __dealloc__(self):
        free(self.view.chunks)
        free(self.view.links)

    cdef int _renew(self, uint64_t incarnation, bytes boot) except -1:
        cdef int rc = lock_init(&self.control.lock.mutex)
        if rc:
            raise os_error(rc, self.control_map.path, "making the lock of")
        memset(self.control.boot_id, 0, 40)
        memcpy(self.control.boot_id, <char *>boot, len(boot))
        self.control.incarnation = incarnation

    def after_fork(self):
        """In the child of a fork: its own half of the lock."""
        lock_handle_init(&self.lock, &self.control.lock.mutex, self.control_map.fd)

    # --- files ---------------------------------------------------------------------------------------------------

    cdef int _reserve(self, Mapping map, int64_t start, int64_t end) except -1:
        cdef int rc = file_reserve(map.fd, start, end)
        if rc:
            raise os_error(rc, map.path, "growing")

    cdef int _reserve_ring(self, int64_t chunk) except -1:
        """Room for the minimum of a chunk, and what lies before it."""
        cdef int64_t size = self.control_map.file_size()
        cdef int64_t end = ((4096 + 8 * (chunk % DELIVERY_RING)) | 4095) + 1
        if size < end:
            self._reserve(self.control_map, size, end)
        return 0

    cdef int _ensure(self, int64_t end, bint whole=False) except -1:
        """Map the chunks from the start up to offset `end`, with room on the disk (`whole`: also for what had it). Under the
        lock."""
        cdef int64_t first = self.control.start >> DELIVERY_CHUNK_BITS
        cdef int64_t last = max(end - 1, self.control.start) >> DELIVERY_CHUNK_BITS
        cdef int64_t number, count, size, grown
        cdef Mapping map, links
        cdef int i
        if len(self.maps) == 0 or first != self.view.first:
            if last - first >= DELIVERY_RING:
                raise InvalidArgumentError(f"{last - first} chunks of unsettled records in {self.directory}; at most {DELIVERY_RING} are allowed")
            kept = {self.view.first + i: pair for i, pair in enumerate(self.maps)}
            self.retired = [kept, self.firsts]
            self.firsts = {number: map for number, map in self.firsts.items() if number >= first}
            self.maps = []
            while first + len(self.maps) <= last and first + len(self.maps) in kept:
                self.maps.append(kept[first + len(self.maps)])
            self.view.first = first
            self._fill()
        while first + <int64_t>len(self.maps) <= last:
            number = first + len(self.maps)
            base = f"{self.directory}/{number << DELIVERY_CHUNK_BITS:020d}"
            self._reserve_ring(number)
            map = Mapping(base + ".words", DELIVERY_CHUNK_BYTES, True, True)
            if map.file_size() < DELIVERY_WORDS_AT:
                self._reserve(map, 0, DELIVERY_WORDS_AT)
            links = None
            if self.ordered:
                links = Mapping(base + ".links", DELIVERY_CHUNK * sizeof(delivery_link), True, True)
            self.maps.append((map, links))
            self.new_files = True
            self._fill()
        if end <= self.reserved:
            return 0
        for number in range(first if whole else max(first, self.control.frontier >> DELIVERY_CHUNK_BITS), last + 1):
            count = min(end - (number << DELIVERY_CHUNK_BITS), <int64_t>DELIVERY_CHUNK)
            count = min((count + RESERVE_WORDS - 1) // RESERVE_WORDS * RESERVE_WORDS, <int64_t>DELIVERY_CHUNK)
            map, links = self.maps[number - first]
            size = map.file_size()
            grown = DELIVERY_WORDS_AT + 8 * count
            if size < grown:
                self._reserve(map, size, grown)
            if links is not None:
                size = links.file_size()
                if size < count * <int64_t>sizeof(delivery_link):
                    self._reserve(links, size, count * sizeof(delivery_link))
            self.reserved = (number << DELIVERY_CHUNK_BITS) + count
        return 0

    cdef int _fill(self) except -1:
        cdef Py_ssize_t i
        cdef Mapping map, links
        self.view.count = 0
        free(self.view.chunks)
        free(self.view.links)
        self.view.chunks = <char **>calloc(len(self.maps) + 1, sizeof(char *))
        self.view.links = <char **>calloc(len(self.maps) + 1, sizeof(char *))
        if self.view.chunks == NULL or self.view.links == NULL:
            raise MemoryError()
        for i in range(len(self.maps)):
            map, links = self.maps[i]
            self.view.chunks[i] = map.data
            if links is not None:
                self.view.links[i] = links.data
        self.view.count = len(self.maps)
        return 0

    cdef int _let_go(self) except -1:
        """Delete the files of chunks in which everything is settled. Not under the lock: it takes as long as to receive
        thousands of messages. Other processes let go of theirs later."""
        cdef int64_t start = self.control.start >> DELIVERY_CHUNK_BITS << DELIVERY_CHUNK_BITS
        had, self.retired = self.retired, None
        if had[0]:
            for name in os.listdir(self.directory):
                if name[:20].isdigit() and int(name[:20]) < start:
                    try:
                        os.unlink(f"{self.directory}/{name}")
                    except FileNotFoundError:
                        continue  # another process was faster
        return 0

    cdef int _prepare(self, int64_t number) except -1:
        """Make the files of a chunk that will be needed soon, and let the system clear their pages. Not under the lock, for
        that is what takes long. When it fails, so will `_ensure`, which tells."""
        cdef Mapping map
        cdef int64_t size
        cdef char first
        try:
            map = Mapping(f"{self.directory}/{number << DELIVERY_CHUNK_BITS:020d}.words", DELIVERY_CHUNK_BYTES, True, True)
        except OSError:
            return 0
        size = map.file_size()
        if size >= DELIVERY_CHUNK_BYTES or file_reserve(map.fd, size, DELIVERY_CHUNK_BYTES) == 0:
            with nogil:
                first = (<volatile char *>map.data)[0]
        return 0

    cdef int64_t *_first(self, int64_t offset, bint make) except? NULL:
        """Where the time is kept at which a record was first received; NULL when it is not. Under the lock.

        Made when there is room on the disk. When there is none, the time is not kept: it is not worth refusing a message.
        """
        cdef int64_t number = offset >> DELIVERY_CHUNK_BITS
        cdef Mapping map = self.firsts.get(number)
        if map is None:
            path = f"{self.directory}/{number << DELIVERY_CHUNK_BITS:020d}.firsts"
            if not make and not os.path.exists(path):
                return NULL
            try:
                map = Mapping(path, DELIVERY_FIRSTS_BYTES, True, True)
            except FileNotFoundError:  # the topic was deleted, and its directory
                return NULL
            if map.file_size() < DELIVERY_FIRSTS_BYTES and file_reserve(map.fd, 0, DELIVERY_FIRSTS_BYTES) != 0:
                return NULL
            self.firsts[number] = map
        return <int64_t *>map.data + (offset & (DELIVERY_CHUNK - 1))

    def sync(self):
        """What was settled before is on the disk when this returns."""
        cdef Mapping map, links
        for map, links in [(self.control_map, self.slots_map), *self.maps]:
            for one in (map, links):
                if one is not None:
                    _sync(one)
        if self.new_files:
            self.new_files = False
            _sync(Mapping(self.directory, 0))
            _sync(Mapping(os.path.dirname(self.directory), 0))

    # --- the lock ------------------------------------------------------------------------------------------------

    cdef int _acquire(self) except -1:
        cdef int rc
        if self.retired is not None:
            self._let_go()
        rc = lock_acquire(&self.lock, 0)
        if rc == EBUSY:
            with nogil:
                rc = lock_acquire(&self.lock, 1)
        if rc != 0 and rc != EOWNERDEAD:
            raise os_error(rc, self.control_map.path, "locking")
        if self.control.dirty:
            try:
                self._ensure(self.control.frontier)
                view_rebuild(&self.view)
            except BaseException:
                lock_release(&self.lock)
                raise
        return 0

    def test_mark_dirty(self):
        """As if somebody had died in the middle of a change; for tests. Whoever takes the lock next rebuilds."""
        self._acquire()
        self.control.dirty = 1
        lock_release(&self.lock)


cdef int _sync(Mapping map) except -1:
    cdef int rc, fd = map.fd
    with nogil:
        rc = file_sync(fd)
    if rc:
        raise os_error(rc, map.path, "syncing")
