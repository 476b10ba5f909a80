"""When to try again: exponential back-off with jitter, a limit, and what is not worth another try."""

from __future__ import annotations

import random
from dataclasses import dataclass

from penstock.errors import InvalidConfigError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a worker deals with a handler that raises. Times are seconds."""

    max_attempts: int | None = None
    """Deliveries before a message is dead-lettered; None: the queue's `max_receives`."""
    delay: float = 1.0
    """Before the second attempt."""
    factor: float = 2.0
    """Each further delay is so many times the last."""
    max_delay: float = 300.0
    """No delay is longer."""
    jitter: float = 0.5
    """Part of the delay that is random, 0 to 1, so that what failed together does not come back together."""
    give_up_on: tuple[type[BaseException], ...] = ()
    """Exceptions after which the message is dead-lettered at once."""

    def __post_init__(self) -> None:
        if self.max_attempts is not None and (type(self.max_attempts) is not int or self.max_attempts < 1):
            raise InvalidConfigError(f"max_attempts is {self.max_attempts!r}; allowed is an int from 1, or None")
        for name, least, most in (("delay", 0, 43_200), ("factor", 1, 100), ("max_delay", 0, 43_200), ("jitter", 0, 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
                raise InvalidConfigError(f"{name} is {value!r}; allowed is a number from {least} to {most}")

        found = self.give_up_on if isinstance(self.give_up_on, tuple) else (self.give_up_on,)
        if not all(isinstance(one, type) and issubclass(one, BaseException) for one in found):
            raise InvalidConfigError(f"give_up_on is {self.give_up_on!r}; allowed are exception classes")

    def delay_after(self, failures: int) -> float:
        """Seconds to wait after so many failures (1: the first)."""
        whole = min(self.max_delay, self.delay * self.factor ** min(failures - 1, 64))
        return float(whole * (1 - self.jitter * random.random()))
