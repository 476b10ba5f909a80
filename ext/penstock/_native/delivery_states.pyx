"""Settling messages and looking at their states: every change of a word but the claim's goes through here.

The transitions are those of the table in `delivery.h`. Thread and process safety: under the group's lock, but for `accept`.
Crash policy: see `delivery.h`.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, int64_t, uint64_t

from penstock._native.control cimport bell_ring, lock_release
from penstock._native.delivery_intake cimport DeliveryIntake
from penstock._native.delivery_view cimport *
from penstock._native.metrics cimport metrics_add

from penstock.errors import StaleReceiptError

DELIVERY_LIMIT, REJECTED, EXPIRED, MAXLEN, PURGED, MOVED, MISSING = 1, 2, 4, 5, 6, 7, 8
STATES = ("available", "acquired", "acknowledged", "archived")

cdef enum:
    ADVANCE = 1 << 16


cdef class DeliveryStates(DeliveryIntake):
    """The state of every message of a group in one partition."""

    cdef uint64_t _word(self, int64_t offset) except? 0:
        cdef uint64_t word
        self._acquire()
        try:
            self._take_in()
            word = word_get(view_word(&self.view, offset)) if self.control.start <= offset < self.control.frontier else 0
        finally:
            lock_release(&self.lock)
        return word

    # --- when it was first received --------------------------------------------------------------------------------

    cdef int64_t _first_received(self, int64_t offset, uint64_t word) except -1:
        """When a record with this word was first received, ms; 0 when it never was, or nobody knows. Under the lock."""
        cdef int64_t *kept
        if word_acquired(word) == 0:
            return 0
        kept = self._first(offset, False)
        if kept != NULL and kept[0]:
            return kept[0]
        return max(1, word_visible(word) - self.visibility_ms) if word_state(word) == ACQUIRED else 0

    cdef int _keep_first(self, int64_t offset, uint64_t word) except -1:
        """Before the word of a record forgets it: while its first lock lasts, that is what tells. Under the lock."""
        cdef int64_t first
        cdef int64_t *kept
        if word_acquired(word) != 1 or word_state(word) != ACQUIRED:
            return 0
        first = self._first_received(offset, word)
        kept = self._first(offset, True)
        if kept != NULL:
            kept[0] = first
        return 0

    # --- settling --------------------------------------------------------------------------------------------------

    cdef int accept(self, int64_t offset, int64_t receipt) except -1:
        """Acknowledge: one compare and swap (in ordered groups under the lock). 1 when the caller has to count it."""
        cdef int done = view_accept(&self.view, offset, receipt)
        if done >= 0:
            return done
        return self.settle(offset, receipt, ACCEPT, 0)

    cpdef int settle(self, int64_t offset, int64_t receipt, int action, int64_t visible) except -1:
        """Change an acquired message's state (see `delivery.h`); `StaleReceiptError` when the receipt is not the latest."""
        cdef uint64_t word, after
        cdef uint64_t *place
        cdef bint head
        self._acquire()
        try:
            if offset < self.control.start:
                if action == ACCEPT:
                    return 0  # settled, or past retention: there is nothing left to acknowledge
                raise self._stale(offset, receipt, 0)
            if offset >= self.control.frontier:
                raise self._stale(offset, receipt, 0)
            if not view_mapped(&self.view, offset):
                self._ensure(self.control.frontier)
            place = view_word(&self.view, offset)
            while True:
                word = word_get(place)
                after = word_settle(word, receipt, action, visible)
                if after == WORD_STALE:
                    raise self._stale(offset, receipt, word)
                if after == word:
                    return 0
                if action != ACCEPT and action != UNDO:
                    self._keep_first(offset, word)
                if self.ordered or word_dead(after):
                    self.control.dirty = 1
                if self.ordered and word_state(after) == AVAILABLE and not self._leads(offset):
                    after = word_make(VISIBLE_PARKED, word_acquired(after), word_failures(after), AVAILABLE)
                if word_state(after) < ACKNOWLEDGED:
                    view_lower(&self.view, offset, word_visible(after))
                if word_cas(place, word, after):
                    settle_count(self.metrics, action)
                    break
            if word_state(after) == ACKNOWLEDGED:
                count_up(&self.control.acknowledgements, 1)
            elif word_state(after) == ARCHIVED:
                self.control.archivals += 1
                if word_dead(after):
                    view_chunk_dead(&self.view, offset)[0] += 1
            if self.ordered and word_state(after) >= ACKNOWLEDGED:
                group_advance(&self.view, offset)
            self.control.dirty = 0
        finally:
            lock_release(&self.lock)
        if self.ordered or word_state(after) == AVAILABLE:
            bell_ring(self.log.bell.words)
        return 0

    cdef bint _leads(self, int64_t offset) noexcept:
        return self.view.slots[view_link(&self.view, offset).slot - 1].head == offset + 1

    cdef object _stale(self, int64_t offset, int64_t receipt, uint64_t word):
        state = STATES[word_state(word)] if word else "available, or gone"
        if self.metrics != NULL:
            metrics_add(&self.metrics.stale, 1)
        return StaleReceiptError(
            f"receipt {receipt} of offset {offset} in {self.log.topic}-{self.log.number} is stale: the message is {state}, "
            f"received {word_acquired(word)} times"
        )

    def requeue(self, int64_t offset, int64_t visible_ms):
        """Make a dead message available again, with its failures forgotten; False when it is not dead."""
        cdef uint64_t word
        cdef uint64_t *place
        self._acquire()
        try:
            self._take_in()
            if not self.control.start <= offset < self.control.frontier:
                return False
            place = view_word(&self.view, offset)
            word = word_get(place)
            if not word_dead(word):
                return False
            self.control.dirty = 1
            view_chunk_dead(&self.view, offset)[0] -= 1
            view_lower(&self.view, offset, visible_ms)
            word_put(place, word_make(visible_ms, word_acquired(word), 0, AVAILABLE))
            if self.ordered:
                view_rebuild(&self.view)
            self.control.dirty = 0
        finally:
            lock_release(&self.lock)
        bell_ring(self.log.bell.words)
        return True

    def archive(self, int64_t start, int64_t end, int reason, str state not None="unsettled"):
        """Archive what is available (`state` "dead": what is dead) in [start, end); how many. What is in flight stays."""
        cdef int64_t offset, count = 0
        cdef uint64_t word
        cdef uint64_t *place
        cdef bint dead = state == "dead"
        self._acquire()
        try:
            self._take_in()
            self.control.dirty = 1
            for offset in range(max(start, self.control.start), min(end, self.control.frontier)):
                place = view_word(&self.view, offset)
                word = word_get(place)
                if (word_dead(word) if dead else word_state(word) == AVAILABLE):
                    word_put(place, word_make(VISIBLE_NEVER - reason, word_acquired(word), word_failures(word), ARCHIVED))
                    view_touch(&self.view, offset)
                    self.control.archivals += 1
                    count += 1
            view_rebuild(&self.view)
            view_advance(&self.view, INT64_MAX >> 1)
        finally:
            lock_release(&self.lock)
        return count

    # --- looking ---------------------------------------------------------------------------------------------------

    def take_in(self):
        """Look at what was stored since; returns (start, frontier)."""
        self._acquire()
        try:
            self._take_in()
            view_advance(&self.view, ADVANCE)
            return self.control.start, self.control.frontier
        finally:
            lock_release(&self.lock)

    def next_visible_ms(self):
        """When the next message may become visible by itself (a lower bound), or None."""
        cdef int64_t least = view_next_visible(&self.view)
        return None if least > VISIBLE_MAX else least

    def counts(self, int64_t now_ms):
        """(ready, in_flight, delayed, dead, oldest unsettled offset or -1), exactly. A message that waits for the earlier one
        of its group is ready."""
        cdef delivery_counts n
        self._acquire()
        try:
            self._take_in()
            view_advance(&self.view, ADVANCE)
            view_count(&self.view, now_ms, &n)
        finally:
            lock_release(&self.lock)
        return n.ready + n.parked, n.in_flight, n.delayed, n.dead, n.oldest

    def find(self, str state not None, int64_t now_ms, int64_t start, Py_ssize_t most):
        """Offsets of up to `most` messages in a state (ready, in_flight, delayed, dead) from offset `start` on."""
        cdef uint64_t word, bound = <uint64_t>(now_ms + 1) << VISIBLE_SHIFT
        cdef int64_t offset
        cdef int kind
        found = []
        self._acquire()
        try:
            self._take_in()
            offset = max(start, self.control.start)
            while offset < self.control.frontier and len(found) < most:
                word = word_get(view_word(&self.view, offset))
                kind = word_state(word)
                if kind >= ACKNOWLEDGED:
                    name = "dead" if word_dead(word) else ""
                elif word < bound or word_visible(word) == VISIBLE_PARKED:
                    name = "ready"
                else:
                    name = "in_flight" if kind == ACQUIRED else "delayed"
                if name == state:
                    found.append(offset)
                offset += 1
        finally:
            lock_release(&self.lock)
        return found

    def unsettled(self, int64_t now_ms):
        """(first offset, a byte for each message from there on: 0 settled, 1 ready, 2 in flight or delayed)."""
        cdef int64_t offset, start
        cdef uint64_t word, bound = <uint64_t>(now_ms + 1) << VISIBLE_SHIFT
        cdef bytes kinds
        cdef char *kind
        self._acquire()
        try:
            self._take_in()
            start = self.control.start
            kinds = PyBytes_FromStringAndSize(NULL, self.control.frontier - start)
            kind = PyBytes_AS_STRING(kinds)
            for offset in range(start, self.control.frontier):
                word = word_get(view_word(&self.view, offset))
                if word_state(word) >= ACKNOWLEDGED:
                    kind[offset - start] = 0
                else:
                    kind[offset - start] = 1 if word < bound or word_visible(word) == VISIBLE_PARKED else 2
        finally:
            lock_release(&self.lock)
        return start, kinds

    @property
    def totals(self):
        """(acquisitions, acknowledgements, archivals) so far."""
        return self.control.acquisitions, self.control.acknowledgements, self.control.archivals

    @property
    def start(self):
        """Every message below this offset is settled."""
        return self.control.start
