"""What a share group hands out in one partition: claiming messages, and reading them from the log.

Thread and process safety: words are claimed under the group's lock; reading has a lock of this handle's own, taken once a batch.
Crash policy: a claim that was not handed out comes back at its time-out.
"""

from cpython.pythread cimport NOWAIT_LOCK, WAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc, qsort

from penstock._native.control cimport lock_release, monotonic_ns
from penstock._native.delivery_states cimport DeliveryStates
from penstock._native.delivery_view cimport *
from penstock._native.lane cimport system_time_ms
from penstock._native.message cimport Message
from penstock._native.message_reader cimport MessageReader
from penstock._native.metrics cimport METRICS_SAMPLE, metrics_add, metrics_observe_shared
from penstock._native.partition cimport Partition

from penstock.errors import CorruptionError


cdef extern from "<unistd.h>" nogil:
    int getpid()

cdef enum:
    ADVANCE = 1 << 16
    REASON_DELIVERY_LIMIT = 1
    REASON_MISSING = 8


cdef int _by_offset(const void *a, const void *b) noexcept nogil:
    cdef int64_t x = (<delivery_claim *>a).offset, y = (<delivery_claim *>b).offset
    return (x > y) - (x < y)


cdef class Delivery(DeliveryStates):
    """`Delivery(directory, log, incarnation, boot_id, ordered, decompressed_limit_bytes)`: opened under a file lock, see
    `penstock.queues.delivery_store`."""

    def __init__(self, str directory not None, Partition log not None, uint64_t incarnation, str boot_id not None, bint ordered, Py_ssize_t decompressed_limit_bytes):
        DeliveryStates.__init__(self, directory, log, incarnation, boot_id, ordered, decompressed_limit_bytes)
        self._renew_reading()
        self.reader = MessageReader(log, decompressed_limit_bytes)

    def after_fork(self):
        """In the child of a fork: its own half of the locks."""
        DeliveryStates.after_fork(self)
        self._renew_reading()  # the parent's may be held, for ever
        self.reader.forget()

    def __dealloc__(self):
        if self.reading != NULL:
            PyThread_free_lock(self.reading)

    cdef int _renew_reading(self) except -1:
        self.reading = PyThread_allocate_lock()
        if self.reading == NULL:
            raise MemoryError()
        return 0

    cdef int _begin_reading(self) except -1:
        """Take the lock of reading, waiting without the GIL."""
        if not PyThread_acquire_lock(self.reading, NOWAIT_LOCK):
            with nogil:
                PyThread_acquire_lock(self.reading, WAIT_LOCK)
        return 0

    def claim(self, queue not None, list out not None, int64_t now_ms, int64_t until_ms, Py_ssize_t wanted, int64_t failures_max):
        """Acquire up to `wanted` messages until `until_ms` (with `now_ms` -1: so long from the machine's time) and append them to `out`; returns those that failed too often, to be
        dead-lettered by the caller, as a list of (message, reason, when its last lock ran out, if its holder was about to dead-letter it; else None).

        Raises `CorruptionError` when the first one cannot be read: a failure, hidden for as long as it was asked for.
        """
        cdef delivery_claim *claims
        cdef int64_t n, taken_in
        cdef list exhausted
        cdef Py_ssize_t had = len(out)
        if wanted < 1:
            return None
        if now_ms < 0:
            now_ms = system_time_ms()
            until_ms += now_ms
        claims = <delivery_claim *>malloc(wanted * sizeof(delivery_claim))
        if claims == NULL:
            raise MemoryError()
        try:
            self._acquire()
            try:
                if not 0 <= now_ms - self.control.claimed_ms <= CLOCK_NOTED_MS:
                    self._note_time(queue, now_ms)
                taken_in = self.control.frontier
                n = self._claim(claims, now_ms, until_ms, wanted)
                if self.control.frontier == taken_in:
                    taken_in = -1
                self._note_firsts(claims, n, now_ms, until_ms)
            finally:
                lock_release(&self.lock)
            if taken_in >= 0 and not self.ordered:
                self._prepare_next()
            if self.ordered:
                qsort(claims, n, sizeof(delivery_claim), _by_offset)
            self._begin_reading()
            try:
                exhausted = self._hand_out(queue, out, claims, n, until_ms, failures_max)
            finally:
                PyThread_release_lock(self.reading)
            self._count(claims, n, out, had, now_ms)
        finally:
            free(claims)
        return exhausted

    cdef int _note_time(self, queue, int64_t now_ms) except -1:
        """Note when somebody claims, by the wall clock, and what it means when that was set back. Under the lock."""
        cdef delivery_control *c = self.control
        cdef int64_t back
        if now_ms < c.claimed_ms - CLOCK_SET_MS:
            now_ms = queue._clock.time_ms()  # again: this thread may have been held up before it had the lock
            back = c.claimed_ms - now_ms
            if back <= CLOCK_SET_MS:
                return 0
            self._take_in()
            self._ensure(c.frontier)
            view_clock_back(&self.view, now_ms, back, self.visibility_ms)
            c.claimed_ms = now_ms
        elif now_ms > c.claimed_ms:
            c.claimed_ms = now_ms
        return 0

    cdef list _hand_out(self, queue, list out, delivery_claim *claims, int64_t n, int64_t until_ms, int64_t failures_max):
        """Read what was claimed and append it to `out`; what failed too often is returned instead. Under the lock of reading."""
        cdef int64_t i = 0
        cdef Message message
        cdef list exhausted = None
        try:
            while i < n:
                message = self.reader.read(queue, self, claims[i].offset)
                i += 1
                if message is None:
                    self.settle(claims[i - 1].offset, word_acquired(claims[i - 1].word), REJECT, REASON_MISSING)
                    continue
                message.receipt = word_acquired(claims[i - 1].word)
                message.failures = word_failures(claims[i - 1].word)
                message.first_ms = claims[i - 1].first_ms
                if message.failures >= MARKED or failures_max > 0 and message.failures >= failures_max:
                    if exhausted is None:
                        exhausted = []
                    exhausted.append((message, COUNT_MAX - message.failures, word_visible(claims[i - 1].before)) if message.failures >= MARKED else (message, REASON_DELIVERY_LIMIT, None))
                else:
                    out.append(message)
        except CorruptionError:
            if i == 0:
                self._give_back(claims, 1, n)
                self._refuse(&claims[0], until_ms, failures_max)
                raise
            self._give_back(claims, i, n)  # the next call begins with it
        except BaseException:
            self._give_back(claims, i, n)
            raise
        return exhausted

    cdef int _refuse(self, delivery_claim *claim, int64_t until_ms, int64_t failures_max) except -1:
        """A message that cannot be read failed: hidden until then, or dead."""
        cdef bint dead = failures_max > 0 and word_failures(claim.word) + 1 >= failures_max
        self.settle(
            claim.offset, word_acquired(claim.word), REJECT if dead else FAIL, REASON_DELIVERY_LIMIT if dead else until_ms,
        )
        if dead and self.metrics != NULL:
            metrics_add(&self.metrics.dead, 1)
        return 0

    cdef int64_t _claim(self, delivery_claim *claims, int64_t now_ms, int64_t until_ms, int64_t wanted) except -1:
        """Acquire up to `wanted`; how many. A long backlog is taken in by chunks, one ahead of what was touched, so that nobody
        waits for all of it. Under the lock."""
        cdef delivery_control *c = self.control
        cdef int64_t n = 0, frontier, most = ((max(c.start, c.touched) >> DELIVERY_CHUNK_BITS) + 2) << DELIVERY_CHUNK_BITS
        cdef bint more = True
        while more:
            more = self._take_in(most)
            frontier = c.frontier
            view_advance(&self.view, ADVANCE)
            if self.ordered:
                c.dirty = 1
            n += view_claim(&self.view, now_ms, until_ms, wanted - n, getpid(), claims + n)
            c.dirty = 0
            if n == wanted:
                break
            most = max(most, frontier) + DELIVERY_CHUNK
        return n

    cdef int _prepare_next(self) except -1:
        """The chunk that will be taken in next, when the log reaches into it. Not under the lock."""
        cdef int64_t frontier = self.control.frontier
        if frontier % DELIVERY_CHUNK == 0 and self.log.log_end_offset > frontier:
            self._prepare(frontier >> DELIVERY_CHUNK_BITS)
        return 0

    cdef int _count(self, delivery_claim *claims, int64_t n, list out, Py_ssize_t had, int64_t now_ms) except -1:
        cdef int64_t handed_out = len(out) - had, place
        cdef Message message
        self.ticks += 1
        place = claims_count(self.metrics, claims, n, handed_out, self.ticks)
        if place >= 0:
            message = out[had + place]
            message.received_ns = monotonic_ns()
            message.weight = handed_out * (METRICS_SAMPLE if handed_out < METRICS_SAMPLE else 1)
            metrics_observe_shared(&self.metrics.wait_ms, max(now_ms - message.timestamp_ms, 0), message.weight)
        return 0

    cdef int _note_firsts(self, delivery_claim *claims, int64_t n, int64_t now_ms, int64_t until_ms) except -1:
        """When each claimed message was first received: now, or what was kept, or what its last lock tells. Under the lock."""
        cdef int64_t i
        cdef int64_t *kept
        cdef bint unusual = until_ms - now_ms != self.visibility_ms
        for i in range(n):
            claims[i].first_ms = now_ms
            if word_acquired(claims[i].before):
                self._keep_first(claims[i].offset, claims[i].before)
                claims[i].first_ms = self._first_received(claims[i].offset, claims[i].before) or now_ms
            elif unusual:
                kept = self._first(claims[i].offset, True)
                if kept != NULL:
                    kept[0] = now_ms
        return 0

    cdef int _give_back(self, delivery_claim *claims, int64_t first, int64_t n) except -1:
        """These were not handed out after all."""
        cdef int64_t i
        for i in range(first, n):
            self.settle(claims[i].offset, word_acquired(claims[i].word), UNDO, 0)
        return 0

    def read(self, queue, int64_t offset):
        """The message at an offset, not received (`delivery_count` as of now), or None."""
        cdef Message message
        cdef uint64_t word
        self._begin_reading()
        try:
            message = self.reader.read(queue, self, offset)
        finally:
            PyThread_release_lock(self.reading)
        if message is not None:
            word = self._word(offset)
            message.receipt = word_acquired(word)
            message.failures = word_failures(word)
            message.first_ms = self._first_read(offset, word)
        return message

    cdef int64_t _first_read(self, int64_t offset, uint64_t word) except -1:
        if word_acquired(word) == 0:
            return 0
        self._acquire()
        try:
            return self._first_received(offset, word)
        finally:
            lock_release(&self.lock)

    def acquire(self, queue not None, int64_t offset, int64_t until_ms):
        """Receive the message at one offset, if nobody has it; or None. Not for ordered groups' records behind their head."""
        cdef uint64_t word, after
        cdef uint64_t *place
        cdef Message message = self.read(queue, offset)
        if message is None:
            return None
        self._acquire()
        try:
            self._take_in()
            if not self.control.start <= offset < self.control.frontier:
                return None
            place = view_word(&self.view, offset)
            word = word_get(place)
            if word_state(word) != AVAILABLE or self.ordered and not self._leads(offset):
                return None
            after = word_acquire(word, until_ms)
            self._keep_first(offset, word)
            message.first_ms = self._first_received(offset, word)
            view_lower(&self.view, offset, until_ms)
            word_put(place, after)
            view_touch(&self.view, offset)
        finally:
            lock_release(&self.lock)
        message.receipt = word_acquired(after)
        message.failures = word_failures(after)
        return message

    def received(self, queue not None, int64_t offset, int64_t receipt):
        """The message that was handed out with a receipt, while that is valid; or None."""
        cdef uint64_t word = self._word(offset)
        cdef Message message
        if word_state(word) != ACQUIRED or word_acquired(word) != receipt:
            return None
        message = self.read(queue, offset)
        if message is not None:
            message.receipt = receipt
            message.failures = word_failures(word)
        return message
