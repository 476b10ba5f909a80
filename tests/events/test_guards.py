"""Circuit breaker, bulkhead and rate limit: one contract, and each one's own states, on a virtual clock."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import Callable

import pytest

from penstock import InvalidArgumentError, InvalidTypeError, VirtualClock, events
from penstock.events.guard import Guard

MAKERS: list[Callable[[VirtualClock], Guard]] = [
    lambda clock: events.CircuitBreaker(clock=clock),
    lambda clock: events.Bulkhead(2, clock=clock),
    lambda clock: events.RateLimit(100, clock=clock),
]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def wait_until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.001)


@pytest.mark.parametrize("make", MAKERS)
def test_every_guard_is_a_context_manager_and_a_decorator(make: Callable[[VirtualClock], Guard]) -> None:
    guard = make(VirtualClock())

    @guard
    def double(number: int) -> int:
        """Twice."""
        return number * 2

    @guard
    async def triple(number: int) -> int:
        return number * 3

    async def main() -> int:
        async with guard:
            assert await guard.call(asyncio.sleep, 0, result=6) == 6
            return await triple(5)

    with guard as entered:
        assert entered is guard
    assert (double(4), double.__doc__, asyncio.run(main())) == (8, "Twice.", 15)
    assert guard.call(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        guard.call(divmod, 7, 0)
    with pytest.raises(ZeroDivisionError), guard:
        _ = 1 / 0
    with pytest.raises(InvalidTypeError, match="callable"):
        guard(3)  # type: ignore[type-var]
    assert type(guard).__name__ in repr(guard)


def fail(breaker: events.CircuitBreaker, error: type[Exception] = OSError) -> None:
    with pytest.raises(error), breaker:
        raise error


def test_a_circuit_opens_half_opens_and_closes(clock: VirtualClock) -> None:
    changes: list[tuple[str, str]] = []
    breaker = events.CircuitBreaker(
        3, reset_timeout=30, clock=clock, on_change=lambda old, new: changes.append((old, new))
    )
    fail(breaker)
    fail(breaker)
    assert breaker.state == "closed" and breaker.ready() is None and breaker.retry_after == 0
    fail(breaker)
    assert breaker.state == "open" and breaker.ready() == 0
    clock.advance(10)
    with pytest.raises(events.CircuitOpenError) as refused, breaker:
        pytest.fail("it was let through")
    assert refused.value.retry_after == 20 and refused.value.retriable
    assert pickle.loads(pickle.dumps(refused.value)).retry_after == 20
    clock.advance(20)
    assert breaker.state == "half-open" and breaker.ready() == 1
    fail(breaker)
    assert breaker.state == "open" and breaker.retry_after == 30
    clock.advance(30)
    with breaker:
        assert breaker.ready() == 0
        with pytest.raises(events.CircuitOpenError, match="half-open"), breaker:
            pytest.fail("a second trial was let through")
    assert breaker.state == "closed"
    closed, opened, half = "closed", "open", "half-open"
    assert changes == [(closed, opened), (opened, half), (half, opened), (opened, half), (half, closed)]


def test_failures_are_forgotten_after_the_window(clock: VirtualClock) -> None:
    breaker = events.CircuitBreaker(2, window=60, clock=clock)
    fail(breaker)
    clock.advance(60)
    fail(breaker)
    assert breaker.state == "closed"
    fail(breaker)
    assert breaker.state == "open"


def test_a_rate_of_failures_opens_it(clock: VirtualClock) -> None:
    breaker = events.CircuitBreaker(failure_rate=0.5, minimum_calls=4, clock=clock)
    fail(breaker)
    fail(breaker)
    with breaker:
        pass
    assert breaker.state == "closed"
    with breaker:
        pass
    assert breaker.state == "open", "half of four calls failed"


def test_only_what_counts_is_counted(clock: VirtualClock) -> None:
    breaker = events.CircuitBreaker(1, failures=OSError, ignore=FileNotFoundError, clock=clock)
    fail(breaker, ValueError)
    fail(breaker, FileNotFoundError)
    fail(breaker, events.RateLimitedError)  # another guard's refusal
    assert breaker.state == "closed"
    fail(breaker, PermissionError)
    assert breaker.state == "open"
    breaker.close()
    assert breaker.state == "closed"
    breaker.open()
    assert breaker.state == "open"


def test_more_trials(clock: VirtualClock) -> None:
    breaker = events.CircuitBreaker(1, trial_calls=2, clock=clock, reset_timeout=0)
    fail(breaker)
    with breaker:
        pass
    assert breaker.state == "half-open" and breaker.ready() == 1
    with breaker:
        pass
    assert breaker.state == "closed"


def test_a_bulkhead_refuses_or_lets_wait(clock: VirtualClock) -> None:
    strict, patient = events.Bulkhead(1, clock=clock), events.Bulkhead(1, max_wait=10, max_waiting=1, clock=clock)
    with strict:
        with pytest.raises(events.BulkheadFullError), strict:
            pytest.fail("it was let through")
    order: list[str] = []

    def wait(name: str) -> None:
        try:
            with patient:
                order.append(name)
        except events.BulkheadFullError:
            order.append("given up")

    with patient:
        thread = threading.Thread(target=wait, args=("second",))
        thread.start()
        wait_until(lambda: patient.waiting == 1)
        with pytest.raises(events.BulkheadFullError, match="1 calls run, 1 wait"), patient:
            pytest.fail("it was let through")
        order.append("first")
    thread.join()
    with patient:
        thread = threading.Thread(target=wait, args=("late",))
        thread.start()
        wait_until(lambda: patient.waiting == 1)
        clock.advance(10)
        thread.join()
    assert order == ["first", "second", "given up"]
    assert (patient.running, patient.waiting) == (0, 0)


def test_a_cancelled_task_leaves_the_line(clock: VirtualClock) -> None:
    bulkhead = events.Bulkhead(1, max_wait=10, clock=clock)

    async def main() -> None:
        async with bulkhead:
            task = asyncio.create_task(bulkhead.__aenter__())
            while bulkhead.waiting == 0:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert bulkhead.waiting == 0
        async with bulkhead:
            assert bulkhead.running == 1

    asyncio.run(main())


def test_a_rate_limit_is_a_bucket_of_tokens(clock: VirtualClock) -> None:
    limit = events.RateLimit(10, burst=5, max_wait=0, clock=clock)
    for _ in range(5):
        with limit:
            pass
    with pytest.raises(events.RateLimitedError) as refused, limit:
        pytest.fail("it was let through")
    assert refused.value.retry_after == pytest.approx(0.1)
    assert limit.available == 0
    clock.advance(0.25)
    assert limit.available == 2
    assert limit.take(2) == 0
    clock.advance(100)
    assert limit.available == 5, "the bucket holds no more"


def test_a_rate_limit_lets_wait_in_order(clock: VirtualClock) -> None:
    limit = events.RateLimit(1, per=60, clock=clock)
    assert limit.take() == 0
    assert (limit.take(), limit.take()) == (60, 120)
    done = threading.Event()

    def wait() -> None:
        with limit:
            done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: limit.take() > 180)  # the thread has its token, the fourth
    clock.advance(179)
    assert not done.is_set()
    clock.advance(1)
    thread.join()
    assert done.is_set()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: events.CircuitBreaker(0), "failure_threshold"),
        (lambda: events.CircuitBreaker(failure_rate=2), "failure_rate"),
        (lambda: events.Bulkhead(1.5), "max_concurrent"),
        (lambda: events.Bulkhead(1, max_wait=-1), "max_wait"),
        (lambda: events.RateLimit(0), "rate"),
        (lambda: events.RateLimit(1, burst=0), "burst"),
    ],
)
def test_bad_arguments(make: Callable[[], object], name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=name):
        make()


def test_bad_exceptions() -> None:
    with pytest.raises(InvalidTypeError, match="failures"):
        events.CircuitBreaker(failures="OSError")  # type: ignore[arg-type]


def test_who_watches_a_circuit_does_not_come_between(clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, str]] = []

    def watch(old: str, new: str) -> None:
        told.append((old, new))
        raise RuntimeError("of the watcher")

    breaker = events.CircuitBreaker(failure_threshold=1, reset_timeout=5, on_change=watch, clock=clock)
    with pytest.raises(ValueError, match="of the call"), breaker:
        raise ValueError("of the call")
    clock.advance(5)
    assert breaker.state == "half-open"
    with breaker:
        told.append(("called", ""))
    assert told == [("closed", "open"), ("open", "half-open"), ("called", ""), ("half-open", "closed")]
    assert caplog.text.count("RuntimeError: of the watcher") == 3
