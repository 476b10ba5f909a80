"""The rate limit: a token bucket."""

from __future__ import annotations

import threading
from collections.abc import Generator

from penstock.clock import Clock
from penstock.events.guard import Guard, checked_number
from penstock.events.guard_errors import RateLimitedError


class RateLimit(Guard):
    """At most `rate` calls each `per` seconds (default 1.0), `burst` at once (default: `rate`, at least 1).

    One more waits for its token, up to `max_wait` seconds (default: as long as it takes; 0: not at all), else
    `RateLimitedError` is raised. Who comes first goes first. Thread-safe.
    """

    def __init__(
        self,
        rate: float,
        per: float = 1.0,
        burst: int | None = None,
        max_wait: float | None = None,
        name: str = "rate limit",
        clock: Clock | None = None,
    ) -> None:
        super().__init__(clock)
        self._each = checked_number("per", per, 1e-6, 1e9) / checked_number("rate", rate, 1e-9, 1e9)  # seconds a token
        most = max(1, int(rate)) if burst is None else checked_number("burst", burst, 1, 1e9, whole=True)
        self._span = most * self._each
        self._max_wait = None if max_wait is None else checked_number("max_wait", max_wait, 0, 1e9)
        self.name = name
        self._lock = threading.Lock()
        self._free_at = float("-inf")  # when the token after the last one taken is there; the bucket is full before

    @property
    def available(self) -> int:
        """Tokens there are now."""
        with self._lock:
            now = self.clock.monotonic()
            return int((now + self._span - max(self._free_at, now)) / self._each + 1e-9)

    def take(self, tokens: int = 1) -> float:
        """Take so many tokens; the seconds after which they are there, 0 when they are. `RateLimitedError` when that is
        longer than `max_wait`: then none were taken.
        """
        checked_number("tokens", tokens, 1, 1e9, whole=True)
        with self._lock:
            now = self.clock.monotonic()
            free_at = max(self._free_at, now) + tokens * self._each
            wait_s: float = max(0.0, free_at - now - self._span)
            if wait_s < 1e-9:
                wait_s = 0.0
            if self._max_wait is not None and wait_s > self._max_wait:
                raise RateLimitedError(f"{self.name}: the next token comes in {wait_s:.3f} s", wait_s)
            self._free_at = free_at
            return wait_s

    def _entering(self) -> Generator[float, None, None]:
        until = self.clock.monotonic() + self.take()
        while (left := until - self.clock.monotonic()) > 0:
            yield left

    def _leave(self, error: BaseException | None) -> None:
        """A token is used up by the call, however it ended."""

    def __repr__(self) -> str:
        return f"<RateLimit {self.name!r} {1 / self._each:g}/s>"
