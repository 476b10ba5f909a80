"""Errors of circuit breakers, bulkheads and rate limits: not now, perhaps later."""

from __future__ import annotations

from typing import Any

from penstock.errors import PenstockError


class BackPressureError(PenstockError, RuntimeError):
    """The call was not made. A bus gives the event back, which is no failure of it, and tries again later.

    Attribute: `retry_after`, seconds until it may be worth another try.
    """

    retriable = True

    def __init__(self, message: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.retry_after)


class CircuitOpenError(BackPressureError):
    """The circuit is open (or half-open, with as many trial calls as are allowed)."""


class BulkheadFullError(BackPressureError):
    """As many calls run at once as the bulkhead allows."""


class RateLimitedError(BackPressureError):
    """The rate limit has no tokens left."""
