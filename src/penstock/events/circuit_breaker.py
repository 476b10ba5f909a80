"""The circuit breaker: after too many failures calls are refused for a while, then tried carefully."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator

from penstock.clock import Clock
from penstock.events.checks import checked_callable
from penstock.events.guard import Guard, checked_exceptions, checked_number
from penstock.events.guard_errors import BackPressureError, CircuitOpenError

_log = logging.getLogger("penstock.circuit_breaker")
CLOSED, OPEN, HALF_OPEN = "closed", "open", "half-open"


class CircuitBreaker(Guard):
    """Closed: calls go through and failures are counted. Open: calls raise `CircuitOpenError`. Half-open: a few trial
    calls go through; all well, it closes, one failure opens it again. Thread-safe. Times are seconds.

    It opens after `failure_threshold` failures within `window` (default 5 in 60.0), or, with `failure_rate` (0 to 1),
    when at least that part of the calls within `window` failed and there were `minimum_calls` (10) of them. It stays
    open for `reset_timeout` (30.0), then lets `trial_calls` (1) through. `failures`: exceptions that count (default
    `Exception`), `ignore`: those that do not though they are of these. `name`: for logs and errors.
    `on_change(old, new)` is called after each change of state; what it raises is logged. `clock`: default the
    machine's, or, given to `bus.on`, the broker's.

    Given to `bus.on(..., breaker=)`, an open circuit pauses the fetching of events instead of failing them.
    """

    def __init__(
        self,
        failure_threshold: int = 5,
        failure_rate: float | None = None,
        minimum_calls: int = 10,
        window: float = 60.0,
        reset_timeout: float = 30.0,
        trial_calls: int = 1,
        failures: type[BaseException] | tuple[type[BaseException], ...] = Exception,
        ignore: type[BaseException] | tuple[type[BaseException], ...] = (),
        name: str = "circuit",
        on_change: Callable[[str, str], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(clock)
        self._clock_given = clock is not None
        self._threshold = checked_number("failure_threshold", failure_threshold, 1, 1e9, whole=True)
        self._rate = None if failure_rate is None else checked_number("failure_rate", failure_rate, 0.001, 1)
        self._minimum = checked_number("minimum_calls", minimum_calls, 1, 1e9, whole=True)
        self._window = checked_number("window", window, 0.001, 1e9)
        self._reset = checked_number("reset_timeout", reset_timeout, 0, 1e9)
        self._trials = checked_number("trial_calls", trial_calls, 1, 1e9, whole=True)
        self._failures = checked_exceptions("failures", failures)
        self._ignore = checked_exceptions("ignore", ignore) if ignore != () else ()
        self.name = name
        self._on_change = checked_callable("on_change", on_change)
        self._lock = threading.RLock()
        self._state = CLOSED
        self._calls: deque[tuple[float, bool]] = deque()  # when, whether it failed; without a rate failures only
        self._failed = 0
        self._opened_at = 0.0
        self._out = self._succeeded = 0  # of the trial calls: under way, and ended well

    @property
    def state(self) -> str:
        """ "closed", "open" or "half-open", now."""
        with self._lock:
            if self._state == OPEN and self._left() <= 0:
                self._change(HALF_OPEN)
            return self._state

    @property
    def retry_after(self) -> float:
        """Seconds until a call may go through again; 0 unless it is open."""
        with self._lock:
            return self._left() if self.state == OPEN else 0.0

    def ready(self) -> int | None:
        """How many calls may be made now: None without limit, 0 while open, else the trial calls that are left."""
        with self._lock:
            if self.state == CLOSED:
                return None
            return 0 if self._state == OPEN else max(0, self._trials - self._out - self._succeeded)

    def open(self) -> None:
        """Open it by hand, for `reset_timeout`."""
        with self._lock:
            self._trip()

    def close(self) -> None:
        """Close it by hand, and forget the failures."""
        with self._lock:
            self._change(CLOSED)

    def _entering(self) -> Generator[float, None, None]:
        with self._lock:
            allowed = self.ready()
            if allowed == 0:
                raise CircuitOpenError(f"{self.name} is {self._state}", self.retry_after or 0.1)
            if allowed is not None:
                self._out += 1
        yield from ()

    def _leave(self, error: BaseException | None) -> None:
        refused = isinstance(error, BackPressureError)
        failed = error is not None and isinstance(error, self._failures) and not isinstance(error, self._ignore)
        with self._lock:
            if self._state == HALF_OPEN:
                self._trial_ended(failed and not refused, refused)
            elif self._state == CLOSED and not refused:
                self._count(failed)

    def _trial_ended(self, failed: bool, refused: bool) -> None:
        self._out = max(0, self._out - 1)
        if failed:
            self._trip()
        elif not refused:
            self._succeeded += 1
            if self._succeeded >= self._trials:
                self._change(CLOSED)

    def _count(self, failed: bool) -> None:
        if not failed and self._rate is None:
            return
        now = self.clock.monotonic()
        self._calls.append((now, failed))
        self._failed += failed
        while self._calls[0][0] <= now - self._window:
            self._failed -= self._calls.popleft()[1]
        if self._rate is None:
            if self._failed >= self._threshold:
                self._trip()
        elif len(self._calls) >= self._minimum and self._failed >= self._rate * len(self._calls):
            self._trip()

    def _left(self) -> float:
        return self._opened_at + float(self._reset) - self.clock.monotonic()

    def _trip(self) -> None:
        self._opened_at = self.clock.monotonic()
        self._change(OPEN)

    def _change(self, state: str) -> None:
        old, self._state = self._state, state
        self._calls.clear()
        self._failed = self._out = self._succeeded = 0
        if old != state:
            _log.warning("%s went from %s to %s", self.name, old, state)
            if self._on_change is not None:
                self._tell(self._on_change, old, state)

    def _tell(self, on_change: Callable[[str, str], object], old: str, state: str) -> None:
        """What watches the circuit must not come between a call and its result."""
        try:
            on_change(old, state)
        except Exception:
            _log.exception("on_change of %s failed", self.name)

    def _follow(self, clock: Clock) -> None:
        """Use the broker's clock, unless one was given."""
        if not self._clock_given:
            self.clock = clock

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r} {self.state}>"
