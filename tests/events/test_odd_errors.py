"""Exceptions of handlers and steps whose messages are no Unicode, are huge, or cannot be told: none ends a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

import penstock
from penstock import VirtualClock, events
from penstock.error_text import line_of, repr_of, trace_of


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")

    __repr__ = __str__


class OddHappened(events.Event):
    number: int


class OddLarge(events.Event):
    text: str


ODD = {
    "surrogate": lambda: ValueError("\ud800"),
    "file-name": lambda: OSError(2, "no such file", "name\udcff"),
    "mute": Mute,
    "huge": lambda: ValueError("x" * 3_000_000),
}
ONCE = events.Retry(max_attempts=1)


@pytest.fixture(params=ODD)
def error(request: pytest.FixtureRequest) -> Exception:
    return ODD[request.param]()


@pytest.fixture
def broker(tmp_path: Path):
    with penstock.open(tmp_path / "data", fsync="never", clock=VirtualClock()) as opened:
        yield opened


def test_the_texts_can_be_stored(error: Exception) -> None:
    for text in (line_of(error), repr_of(error), trace_of(error)):
        assert type(error).__name__ in text and len(text.encode()) < 20_000


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("copies", ["group", "subscriber"])
def test_a_bus_dead_letters_and_goes_on(broker: penstock.Broker, error: Exception, batch: bool, copies: str) -> None:
    done = []
    with events.EventBus(broker) as bus:

        @bus.on(OddHappened, group="g", retry=ONCE, batch=batch, copies=copies, start="earliest")
        def handle(event) -> None:
            number = event[0].number if batch else event.number
            if number == 1:
                raise error
            done.append(number)

        bus.publish(OddHappened(1))
        bus.run_until_idle()
        bus.publish(OddHappened(2))
        bus.run_until_idle()
        assert done == [2]
        assert [type(error).__name__ in letter.error for letter in bus.dead_letters("g")] == [True]


def test_a_worker_of_a_queue_dead_letters_and_goes_on(broker: penstock.Broker, error: Exception) -> None:
    queue = broker.queue("mail", max_receives=1, dead_letter="mail-dead")
    queue.send(b"1")
    (message,) = queue.receive()
    with pytest.raises(type(error)), message:
        raise error
    assert broker.queue("mail-dead").stats().ready == 1


def test_a_saga_fails_and_is_compensated(broker: penstock.Broker, error: Exception) -> None:
    undone = []

    def fail(*_: object) -> None:
        raise error

    with events.Sagas(broker) as sagas:

        @sagas.define("step")
        def step(saga):
            saga.step(len, "a", compensate=undone.append)
            saga.step(fail)

        @sagas.define("function")
        def function(saga):
            saga.step(len, "b", compensate=undone.append)
            fail()

        @sagas.define("compensation")
        def compensation(saga):
            saga.step(len, "c", compensate=fail, retry=ONCE)
            raise ValueError("so it is undone")

        handles = [sagas.start(name) for name in ("step", "function", "compensation")]
        sagas.run_until_idle()
        assert [handle.status for handle in handles] == ["failed", "failed", "compensation_failed"]
        assert sorted(undone) == ["a", "b"]
        assert type(error).__name__ in (sagas.inspect(handles[1].saga_id).reason or "")


def test_a_result_that_is_too_large_fails_the_step_or_the_saga(broker: penstock.Broker) -> None:
    calls, undone = [], []

    def huge() -> str:
        calls.append(1)
        return "x" * 2_000_000

    with events.Sagas(broker) as sagas:

        @sagas.define("step")
        def step(saga):
            saga.step(huge, compensate=lambda: undone.append("step"))

        @sagas.define("function")
        def function(saga):
            saga.step(len, "b", compensate=undone.append)
            return huge()

        handles = [sagas.start(name) for name in ("step", "function")]
        sagas.run_until_idle()
        assert [handle.status for handle in handles] == ["failed", "failed"]
        assert len(calls) == 2 and sorted(undone) == ["b", "step"]


def test_a_subscription_parks(broker: penstock.Broker, error: Exception) -> None:
    store = events.EventStore(broker, "shop")
    store.append("s-1", OddHappened(1))
    subscription = store.subscription("odd", max_receives=1)
    (delivery,) = subscription.receive(wait=0)
    with pytest.raises(type(error)), delivery:
        raise error
    (parked,) = subscription.parked()
    assert type(error).__name__ in parked.reason


@pytest.mark.parametrize("copies", ["group", "subscriber"])
def test_an_event_as_large_as_the_topic_allows_is_dead_lettered_and_redriven(
    broker: penstock.Broker, copies: str
) -> None:
    fails = True
    done = []
    with events.EventBus(broker, max_message_bytes=100_000) as bus:

        @bus.on(OddLarge, group="g", retry=ONCE, copies=copies, start="earliest")
        def handle(event: OddLarge) -> None:
            if fails:
                raise ValueError("x" * 50_000)
            done.append(event)

        bus.publish(OddLarge("x" * 99_600))
        bus.run_until_idle()
        (letter,) = bus.dead_letters("g")
        assert letter.envelope is not None and letter.envelope.event() == OddLarge("x" * 99_600)
        fails = False
        if copies == "group":
            bus.redrive("g")
            bus.run_until_idle()
            assert done == [OddLarge("x" * 99_600)] and bus.dead_letters() == []
