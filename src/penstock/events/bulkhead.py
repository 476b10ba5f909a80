"""The bulkhead: no more than so many calls at once, so that one slow dependency does not take every thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator

from penstock.clock import Clock
from penstock.events.guard import Guard, checked_number
from penstock.events.guard_errors import BulkheadFullError

_LOOK_S = 0.001


class Bulkhead(Guard):
    """At most `max_concurrent` calls run at once; one more waits up to `max_wait` seconds (default 0.0) for a place,
    then raises `BulkheadFullError`. No more than `max_waiting` (default 100) wait. Thread-safe.
    """

    def __init__(
        self,
        max_concurrent: int = 10,
        max_wait: float = 0.0,
        max_waiting: int = 100,
        name: str = "bulkhead",
        clock: Clock | None = None,
    ) -> None:
        super().__init__(clock)
        self._most = checked_number("max_concurrent", max_concurrent, 1, 1e6, whole=True)
        self._max_wait = checked_number("max_wait", max_wait, 0, 1e6)
        self._max_waiting = checked_number("max_waiting", max_waiting, 0, 1e6, whole=True)
        self.name = name
        self._lock = threading.Lock()
        self._running = 0
        self._waiting: deque[object] = deque()  # those who came first go first

    @property
    def running(self) -> int:
        """Calls that run now."""
        return self._running

    @property
    def waiting(self) -> int:
        """Calls that wait for a place now."""
        return len(self._waiting)

    def _entering(self) -> Generator[float, None, None]:
        if self._take(None):
            return
        ticket = object()
        with self._lock:
            if not self._max_wait or len(self._waiting) >= self._max_waiting:
                raise BulkheadFullError(f"{self.name}: {self._most} calls run, {len(self._waiting)} wait", 0.1)
            self._waiting.append(ticket)
        deadline = self.clock.monotonic() + self._max_wait
        try:
            while not self._take(ticket):
                if self.clock.monotonic() >= deadline:
                    raise BulkheadFullError(f"{self.name}: no place of {self._most} in {self._max_wait:g} s", 0.1)
                yield _LOOK_S
        finally:
            with self._lock:
                if ticket in self._waiting:
                    self._waiting.remove(ticket)

    def _take(self, ticket: object | None) -> bool:
        with self._lock:
            first = self._waiting[0] if self._waiting else None
            if self._running >= self._most or first is not ticket:
                return False
            if ticket is not None:
                self._waiting.popleft()
            self._running += 1
            return True

    def _leave(self, error: BaseException | None) -> None:
        with self._lock:
            self._running -= 1

    def __repr__(self) -> str:
        return f"<Bulkhead {self.name!r} {self._running}/{self._most}>"
