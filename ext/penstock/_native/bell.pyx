"""Wake words that all processes of a data directory share: who waits for data arms one, who stored some rings it.

Thread and process safety: any number of threads and processes arm, ring and wait; a `Bell`'s measure of the pauses between
rings is its own and may be off when threads share it. Waiting is done without the GIL.

Crash policy: a word holds nothing that has to survive; who died while armed costs the next ring one wake-up for nobody.
"""

import os

from libc.errno cimport EINTR
from libc.stdint cimport int64_t, uint32_t

from penstock._native.control cimport (
    PENSTOCK_BELL_COUNT,
    PENSTOCK_BELLS_SIZE,
    bell_arm,
    bell_ring_always,
    bell_wait,
    bell_word,
    monotonic_ns,
)
from penstock._native.mapping cimport Mapping

cdef enum:
    BUSY_NS = 150_000  # pauses shorter than that are waited for awake
    SPIN_NS = 1_000_000  # and so is one that is longer than usual

cdef int _cores = os.cpu_count() or 1


cdef class Bells:
    """The wake words of a data directory, mapped from its `bells` file."""

    def __init__(self, str path not None):
        self.map = Mapping(path, PENSTOCK_BELLS_SIZE, True, False)

    cdef bell_word *word(self, Py_ssize_t number) noexcept:
        return <bell_word *>self.map.data + number % PENSTOCK_BELL_COUNT


cdef class Bell:
    """One wake word, shared by all processes. `seen = arm()`, look for data, then `wait(seen, timeout_s)`."""

    def __init__(self, Bells bells not None, Py_ssize_t number):
        self.bells = bells
        self.number = number
        self.words = bells.word(number)
        self.pause_ns = BUSY_NS

    def arm(self):
        """Ask to be woken by the next ring; returns what to pass to `wait`."""
        return bell_arm(self.words)

    @property
    def value(self):
        """How often the bell was rung, modulo 2**32."""
        return self.words.value

    def ring(self):
        """Wake everybody who waits, in every process."""
        bell_ring_always(self.words)

    def wait(self, uint32_t seen, double timeout_s):
        """Sleep until rung since `seen` (True) or until `timeout_s` passed (False). Runs signal handlers.

        While rings come in close succession, waits awake for the next one: waking a sleeping core takes longer than
        the pause between two messages.
        """
        cdef int rc
        cdef int64_t timeout_ns = <int64_t>(max(timeout_s, 0.0) * 1e9)
        cdef bell_word *word = self.words
        cdef int64_t started = monotonic_ns(), spin_ns = SPIN_NS if self.pause_ns < BUSY_NS else 0
        with nogil:
            rc = bell_wait(word, seen, timeout_ns, spin_ns)
        if _cores > 1:  # a single long pause does not end it: others follow at the old pace
            self.pause_ns += (min(monotonic_ns() - started, 2 * BUSY_NS) - self.pause_ns) // 8
        return rc == 0 or rc == EINTR
