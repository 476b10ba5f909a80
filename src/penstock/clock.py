"""Time as a parameter: every deadline, timestamp and timer asks a `Clock`, so that tests can drive a virtual one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from penstock.errors import InvalidArgumentError


class Clock(Protocol):
    """What Penstock asks of time."""

    def time_ms(self) -> int:
        """Wall-clock milliseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds that never go back, for deadlines."""

    def sleep(self, seconds: float) -> None:
        """Block for `seconds`."""


class SystemClock:
    """The machine's clock."""

    def time_ms(self) -> int:
        """Wall-clock milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block the thread for `seconds`."""
        time.sleep(seconds)


class VirtualClock:
    """A clock that moves only when told to: `advance(seconds)`. Blocked waits notice at once.

    Thread-safe. `start_ms` is the first wall-clock reading (default 2020-01-01 UTC).
    """

    def __init__(self, start_ms: int = 1_577_836_800_000) -> None:
        self._condition = threading.Condition()
        self._start_ms = start_ms
        self._elapsed = 0.0
        self._listeners: list[Callable[[], None]] = []

    def time_ms(self) -> int:
        """Virtual wall-clock milliseconds since the epoch."""
        return self._start_ms + round(self._elapsed * 1000)

    def monotonic(self) -> float:
        """Virtual seconds since the clock was made."""
        return self._elapsed

    def sleep(self, seconds: float) -> None:
        """Block until another thread advances the clock by `seconds`."""
        with self._condition:
            deadline = self._elapsed + seconds
            self._condition.wait_for(lambda: self._elapsed >= deadline)

    def advance(self, seconds: float) -> None:
        """Move time forward by `seconds` (>= 0) and wake whoever waits. Raises `InvalidArgumentError` when negative."""
        if seconds < 0:
            raise InvalidArgumentError(f"seconds is {seconds}; time only moves forward, give a value >= 0")
        with self._condition:
            self._elapsed += seconds
            self._condition.notify_all()
        for listener in list(self._listeners):
            listener()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener()` after each advance (used by blocking reads)."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """Stop calling `listener`; nothing happens when it was not subscribed."""
        if listener in self._listeners:
            self._listeners.remove(listener)
