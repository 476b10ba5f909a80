"""When to try again: exponential back-off with jitter, a limit, and exceptions that are not retried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from penstock import RetryPolicy
from penstock.clock import Clock, SystemClock
from penstock.errors import InvalidTypeError
from penstock.events.checks import is_async

T = TypeVar("T")
_clock = SystemClock()


@dataclass(frozen=True, slots=True)
class Retry(RetryPolicy):
    """How often and when something that raised is tried again. Times are seconds.

    `max_attempts` (default 5; None: for ever), `delay` before the second attempt (1.0), each further one `factor` (2.0)
    times the last, at most `max_delay` (300.0), of which the part `jitter` (0.5) is random; `give_up_on`: exceptions
    that are not retried.
    """

    max_attempts: int | None = 5

    def gives_up(self, error: BaseException, failures: int) -> bool:
        """Whether there is no further attempt after so many failures, the last of which was `error`."""
        exhausted = self.max_attempts is not None and failures >= self.max_attempts
        return exhausted or isinstance(error, self.give_up_on) or not isinstance(error, Exception)

    def call(self, function: Callable[..., T], *args: Any, clock: Clock | None = None, **options: Any) -> T:
        """The result of `function(*args, **options)`, tried again as this policy says; its last error is raised.
        `InvalidTypeError` when it is no callable, or async."""
        if not callable(function) or is_async(function):
            raise InvalidTypeError(f"function is {function!r}; a callable (not async) is needed")
        failures = 0
        while True:
            try:
                return function(*args, **options)
            except Exception as error:
                failures += 1
                if self.gives_up(error, failures):
                    raise
            (clock or _clock).sleep(self.delay_after(failures))
