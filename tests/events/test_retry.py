"""Retry policies."""

from __future__ import annotations

import pytest

from penstock import VirtualClock, events
from penstock.errors import InvalidConfigError, InvalidTypeError


class Waits(VirtualClock):
    """Sleeping moves it."""

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)


def test_delays_grow_to_a_limit_and_the_result_is_returned() -> None:
    clock, failures = Waits(), [OSError("a")] * 4

    def act(word: str) -> str:
        if failures:
            raise failures.pop()
        return word

    policy = events.Retry(max_attempts=5, delay=1, factor=3, max_delay=10, jitter=0)
    assert policy.call(act, "done", clock=clock) == "done"
    assert clock.monotonic() == 1 + 3 + 9 + 10


def test_the_last_error_is_raised() -> None:
    calls: list[int] = []

    def act() -> None:
        calls.append(1)
        raise OSError(str(len(calls)))

    with pytest.raises(OSError, match="3"):
        events.Retry(max_attempts=3).call(act, clock=Waits())


def test_an_async_function_would_not_be_awaited() -> None:
    async def act() -> None:
        """Never called."""

    with pytest.raises(InvalidTypeError, match="not async"):
        events.Retry().call(act)


def test_what_is_not_retried() -> None:
    policy = events.Retry(give_up_on=(ValueError,))
    assert policy.gives_up(ValueError(), 1) and policy.gives_up(KeyboardInterrupt(), 1)
    assert not policy.gives_up(OSError(), 4) and policy.gives_up(OSError(), 5)
    assert not events.Retry(max_attempts=None).gives_up(OSError(), 10_000)


def test_bad_policies() -> None:
    with pytest.raises(InvalidConfigError, match="max_attempts"):
        events.Retry(max_attempts=0)
