"""Persistent subscriptions: every event is settled once, whoever dies; what is parked can be replayed."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from children import Child

import penstock
from penstock import events


class Counted(events.Event, type="test.Worked"):
    number: int


class Marked(events.Event, type="test.Marked"):
    number: int


@pytest.fixture
def clock() -> penstock.VirtualClock:
    return penstock.VirtualClock(1_700_000_000_000)


@pytest.fixture
def store(tmp_path: Path, clock: penstock.VirtualClock) -> Iterator[events.EventStore]:
    with penstock.open(tmp_path / "data", fsync="never", clock=clock) as broker:
        yield events.EventStore(broker, "shop")


def fill(store: events.EventStore, count: int = 5) -> None:
    store.append("a-1", [Counted(number) for number in range(count)])


def numbers(found: Any) -> list[int]:
    return [event.event.number for event in found]


def test_receive_and_acknowledge(store: events.EventStore) -> None:
    fill(store)
    billing = store.subscription("billing")
    first = billing.receive(3, wait=0)
    assert numbers(first) == [0, 1, 2]
    assert [(one.stream, one.version, one.position, one.delivery_count) for one in first[:1]] == [("a-1", 0, 1, 1)]
    assert first[0].event == Counted(0) and first[0].envelope.source == "shop"
    assert billing.ack(first) == []
    (fourth, fifth) = billing.receive(wait=0)
    fourth.ack()
    billing.ack(fifth)
    assert billing.receive(wait=0) == []
    assert (billing.info().lag, billing.info().in_flight, billing.info().position) == (0, 0, 5)
    fill(store, 1)
    assert numbers(store.subscription("billing").receive(wait=0)) == [0]


def test_competing_and_separate(store: events.EventStore) -> None:
    fill(store, 6)
    one, two, other = store.subscription("work"), store.subscription("work"), store.subscription("audit")
    assert numbers(one.receive(3, wait=0)) == [0, 1, 2]
    assert numbers(two.receive(9, wait=0)) == [3, 4, 5]
    assert numbers(other.receive(9, wait=0)) == [0, 1, 2, 3, 4, 5]
    assert store.subscriptions() == ["audit", "work"]
    info = one.info()
    assert (info.name, info.lag, info.in_flight, info.parked, info.position) == ("work", 0, 6, 0, 0)


def test_what_is_not_settled_comes_back(store: events.EventStore, clock: penstock.VirtualClock) -> None:
    fill(store, 2)
    work = store.subscription("work", visibility_timeout=10)
    first, second = work.receive(wait=0)
    first.extend(30)
    clock.advance(11)
    (again,) = work.receive(wait=0)
    assert (again.position, again.delivery_count, again.failure_count) == (2, 2, 1)
    with pytest.raises(penstock.StaleReceiptError):
        second.ack()
    assert work.ack([second]) == [second]
    assert work.ack([first, again]) == []


def test_a_failed_one_comes_back_and_is_parked_in_the_end(
    store: events.EventStore, clock: penstock.VirtualClock
) -> None:
    fill(store, 1)
    work = store.subscription("work", max_receives=3, retry_delay=10)
    for failures in range(3):
        (one,) = work.receive(wait=0)
        assert one.failure_count == failures
        work.nack(one, reason=f"try {failures}")
        assert work.receive(wait=0) == []
        clock.advance(30)
    (parked,) = work.parked()
    assert (parked.position, parked.event) == (1, Counted(0))
    assert "max_receives" in parked.reason and "try 2" in parked.reason
    assert parked.parked_ms == clock.time_ms() - 30_000
    assert work.info().parked == 1 and work.info().lag == 0
    assert work.replay_parked() == 1 and work.parked() == []
    (one,) = work.receive(wait=0)
    assert one.failure_count == 0, "it is forgotten that it failed"


def test_one_that_times_out_too_often_is_parked(store: events.EventStore, clock: penstock.VirtualClock) -> None:
    fill(store, 1)
    work = store.subscription("work", max_receives=2, visibility_timeout=1)
    for _ in range(2):
        assert len(work.receive(wait=0)) == 1
        clock.advance(2)
    assert work.receive(wait=0) == []
    (parked,) = work.parked()
    assert "max_receives" in parked.reason and parked.parked_ms is None


def test_park_replay_and_discard(store: events.EventStore) -> None:
    fill(store)
    work = store.subscription("work")
    received = work.receive(wait=0)
    work.park(received[1:4], reason="poison")
    received[0].ack()
    received[4].ack()
    assert [(event.event.number, event.reason) for event in work.parked()] == [(n, "poison") for n in (1, 2, 3)]
    assert numbers(work.parked(limit=2)) == [1, 2]
    assert work.receive(wait=0) == []
    assert work.replay_parked(filter=lambda event: event.event == Counted(2)) == 1
    assert numbers(work.receive(wait=0)) == [2]
    assert work.replay_parked(limit=1) == 1
    assert numbers(work.receive(wait=0)) == [1]
    assert numbers(work.parked()) == [3]
    assert work.discard_parked() == 1 and work.parked() == [] and work.replay_parked() == 0
    with pytest.raises(penstock.InvalidTypeError):
        work.replay_parked(filter="all")  # type: ignore[arg-type]


def test_replaying_wakes_who_waits(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as broker:
        store = events.EventStore(broker, "shop")
        fill(store, 1)
        work = store.subscription("work")
        work.park(work.receive(wait=0))
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.extend(numbers(work.receive(wait=60))))
        thread.start()
        assert work.replay_parked() == 1
        thread.join(30)
        assert found == [0]


def test_with_blocks_and_iteration(store: events.EventStore) -> None:
    fill(store, 3)
    work = store.subscription("work", max_receives=2)
    seen: list[int] = []
    for delivery in work:
        number = delivery.event.number  # type: ignore[attr-defined]
        seen.append(number)
        try:
            with delivery:
                if number == 1:
                    raise RuntimeError("no")
        except RuntimeError:
            pass
        if len(seen) == 4:
            work.close()
    assert Counter(seen) == {0: 1, 1: 2, 2: 1}
    (parked,) = store.subscription("work").parked()
    assert "RuntimeError: no" in parked.reason
    assert work.closed


def test_released_and_interrupted_are_no_failures(store: events.EventStore) -> None:
    fill(store, 1)
    work = store.subscription("work", max_receives=1)
    (one,) = work.receive(wait=0)
    one.release()
    (one,) = work.receive(wait=0)
    with pytest.raises(KeyboardInterrupt), one:
        raise KeyboardInterrupt
    (one,) = work.receive(wait=0)
    assert one.failure_count == 0 and work.parked() == []
    with one:
        one.park("mine")
    assert [event.reason for event in work.parked()] == ["mine"]


def test_filters_and_where_to_begin(store: events.EventStore) -> None:
    for number in range(6):
        event = Marked(number) if number % 2 else Counted(number)
        store.append(f"{'ab'[number // 3]}-{number}", event, tags=["t"] if number > 3 else [])
    store.truncate("a-0", 1)  # a record of the log that is no event
    assert numbers(store.subscription("types", types=Counted).receive(wait=0)) == [0, 2, 4]
    assert numbers(store.subscription("category", category="b").receive(wait=0)) == [3, 4, 5]
    assert numbers(store.subscription("stream", stream="a-1").receive(wait=0)) == [1]
    assert numbers(store.subscription("tags", tags=["t"], types=[Marked]).receive(wait=0)) == [5]
    assert numbers(store.subscription("after", after=4).receive(wait=0)) == [4, 5]
    end = store.subscription("end", after="end")
    assert end.receive(wait=0) == []
    store.append("a-9", Counted(9))
    assert numbers(end.receive(wait=0)) == [9]
    assert store.subscription("types").info().settings["types"] == ["test.Worked"]
    assert numbers(store.subscription("types").receive(wait=0)) == [9]
    assert store.subscription("category").info().lag == 1


def test_settings_stay(store: events.EventStore) -> None:
    store.subscription("work", types=[Counted], max_receives=3)
    assert store.subscription("work", max_receives=3, after=7).info().settings["max_receives"] == 3
    with pytest.raises(penstock.InvalidConfigError, match=r"max_receives is 4.*with 3"):
        store.subscription("work", max_receives=4)
    with pytest.raises(penstock.InvalidConfigError):
        store.subscription("work", types=[Marked])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"name": ""}, TypeError),
        ({"name": "no/slash"}, ValueError),
        ({"name": "x", "after": -1}, ValueError),
        ({"name": "x", "after": "start"}, ValueError),
        ({"name": "x", "category": "a", "stream": "b"}, ValueError),
        ({"name": "x", "max_receives": 0}, ValueError),
        ({"name": "x", "visibility_timeout": -1}, ValueError),
        ({"name": "x", "by_stream": "yes"}, TypeError),
        ({"name": "x", "types": [7]}, TypeError),
    ],
)
def test_bad_arguments(store: events.EventStore, arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(penstock.PenstockError) as caught:
        store.subscription(**arguments)
    assert isinstance(caught.value, error)
    assert store.subscriptions() == []


def test_deleting(store: events.EventStore) -> None:
    fill(store, 2)
    work = store.subscription("work")
    work.park(work.receive(1, wait=0))
    work.close()
    store.delete_subscription("work")
    assert store.subscriptions() == []
    with pytest.raises(events.UnknownSubscriptionError, match="work"):
        store.delete_subscription("work")
    again = store.subscription("work")
    assert numbers(again.receive(wait=0)) == [0, 1] and again.parked() == []


def test_one_stream_after_another(store: events.EventStore) -> None:
    for number in range(4):
        store.append(f"s-{number % 2}", Counted(number))
    work = store.subscription("work", by_stream=True)
    first, second = work.receive(1, wait=0), work.receive(1, wait=0)
    assert numbers(first + second) == [0, 1]
    assert work.receive(wait=0) == []
    work.ack(second)
    assert numbers(work.receive(wait=0)) == [3]


@pytest.mark.parametrize("name", ["max_events", "max_messages"])
def test_how_many_by_both_names(store: events.EventStore, name: str) -> None:
    fill(store)
    billing = store.subscription("billing")
    assert numbers(billing.receive(**{name: 2}, wait=0)) == [0, 1]
    for bad in (0, "2", True):
        with pytest.raises(penstock.InvalidArgumentError, match=f"{name} is {bad!r}"):
            billing.receive(**{name: bad}, wait=0)


def by_stream(store: events.EventStore, **options: Any) -> events.PersistentSubscription:
    """One with three events each of two streams in turn: 0 2 4 and 1 3 5."""
    for number in range(6):
        store.append(f"s-{number % 2}", Counted(number))
    return store.subscription("work", by_stream=True, **options)


FAILURES: dict[str, Any] = {
    "nack": lambda work, one: one.nack("no"),
    "nack of the subscription": lambda work, one: work.nack(one),
    "release": lambda work, one: one.release(),
    "block": lambda work, one: failing(one),
}


def failing(delivery: events.Delivery) -> None:
    with pytest.raises(ValueError), delivery:
        raise ValueError("no")


@pytest.mark.parametrize("failure", FAILURES)
def test_one_that_comes_back_takes_those_behind_it_with_it(store: events.EventStore, failure: str) -> None:
    work = by_stream(store)
    zero, one, two, three, four, five = work.receive(wait=0)
    work.ack(one)
    FAILURES[failure](work, zero)
    assert [event.settled for event in (zero, one, two, three, four, five)] == [True, True, True, False, True, False]
    for call in (two.ack, two.park, lambda: two.extend(5), two.__enter__):
        with pytest.raises(penstock.StaleReceiptError, match=r"position 3 was given back.*stream 's-0'"):
            call()
    two.nack()
    two.release()
    assert work.ack([three, four]) == [four], "the other stream goes on"
    again = work.receive(wait=0)
    assert numbers(again) == [0, 2, 4]
    assert [event.failure_count for event in again] == [failure != "release", 0, 0]
    assert work.ack([*again, five]) == [] and work.info().position == 6


def test_a_loop_over_what_was_received_keeps_the_order(store: events.EventStore) -> None:
    work = by_stream(store)
    done: list[int] = []
    failed = False
    while received := work.receive(wait=0):
        for delivery in received:
            try:
                with delivery:
                    if numbers([delivery]) == [0] and not failed:
                        failed = True
                        raise OSError("not now")
                    done += numbers([delivery])
            except (OSError, penstock.StaleReceiptError):
                continue
    assert [number for number in done if number % 2 == 0] == [0, 2, 4] and sorted(done) == list(range(6))


def test_one_that_is_parked_lets_its_stream_go_on(store: events.EventStore) -> None:
    work = by_stream(store, max_receives=1)
    zero, one, two, three, four, five = work.receive(wait=0)
    zero.park()
    two.nack("last")
    assert work.ack([one, three, four, five]) == []
    assert numbers(work.parked()) == [0, 2]


def test_one_that_somebody_else_has_takes_those_behind_it_with_it(
    store: events.EventStore, clock: penstock.VirtualClock
) -> None:
    work = by_stream(store)
    zero, _, two, *_ = work.receive(wait=0)
    two.extend(100)
    clock.advance(31)
    (again,) = store.subscription("work").receive(1, wait=0)
    assert numbers([again]) == [0]
    with pytest.raises(penstock.StaleReceiptError):
        zero.ack()
    assert two.settled
    again.ack()
    assert numbers(work.receive(1, wait=0)) == [1]
    assert numbers(work.receive(1, wait=0)) == [2]


def test_bad_settlements(store: events.EventStore) -> None:
    fill(store, 1)
    work = store.subscription("work")
    (one,) = work.receive(wait=0)
    for call in (lambda: work.ack([5]), lambda: work.park(one, reason=5), lambda: work.nack("x")):  # type: ignore
        with pytest.raises(penstock.InvalidTypeError):
            call()
    assert not one.settled
    one.ack()
    assert one.settled


def test_personal_data_of_a_parked_event_can_be_forgotten(store: events.EventStore) -> None:
    class Named(events.Event, type="test.Named", subject="id", personal=("name",)):
        id: str
        name: str

    store.append("n-1", Named("7", "Ann"))
    work = store.subscription("work")
    (one,) = work.receive(wait=0)
    assert one.event == Named("7", "Ann")
    one.park()
    store.forget("7")
    assert work.parked()[0].event == Named("7", "[forgotten]")


def test_nothing_of_it_is_foreign_to_the_directory(tmp_path: Path) -> None:
    class Named(events.Event, type="test.Known", subject="id", personal=("name",)):
        id: str
        name: str

    class Known(events.Aggregate, snapshot_every=1):
        name: str = ""

        @events.applies(Named)
        def _(self, event: Named) -> None:
            self.name = event.name

    with penstock.open(tmp_path / "data") as broker:
        store = events.EventStore(broker, "shop")
        known = Known("k-1")
        known.record(Named("7", "Ann"))
        store.save(known)
        assert len(store.subscription("work").receive(wait=0)) == 1
    assert penstock.verify(tmp_path / "data").problems == []


WORKER = """
import sys, penstock
from penstock import events
class Counted(events.Event, type="test.Worked"):
    number: int
with penstock.open(sys.argv[1], fsync="never") as broker:
    store = events.EventStore(broker, "shop")
    with store.subscription("work", visibility_timeout=0.5, max_receives=1000) as work, open(sys.argv[2], "a") as out:
        while True:
            for one in work.receive(7, wait=0.5):
                out.write(f"{one.event.number}\\n")
                out.flush()
                one.ack()
"""


def workers(tmp_path: Path, count: int) -> list[Child]:
    return [Child(WORKER, tmp_path / "data", tmp_path / f"seen{number}") for number in range(count)]


def check_killed(tmp_path: Path, rounds: int, each: int) -> None:
    """Workers are killed again and again: each event is done, and twice only what was in hand at a kill."""
    with penstock.open(tmp_path / "data", fsync="never") as broker:
        store = events.EventStore(broker, "shop")
        watch = store.subscription("work", visibility_timeout=0.5, max_receives=1000)
        total = 0
        for _ in range(rounds):
            children = workers(tmp_path, 2)
            for _ in range(each // 50):
                store.append("a-1", [Counted(total + number) for number in range(50)])
                total += 50
            while watch.info().position < total // 2:
                store.wait(store.position, 0.01)
            for child in children:
                child.send_signal(signal.SIGKILL)
                child.wait(30)
        children = workers(tmp_path, 2)
        while watch.info().position < total:
            store.wait(store.position, 0.01)
        for child in children:
            child.terminate()
            child.wait(30)
        lines = [line for path in tmp_path.glob("seen*") for line in path.read_text().split("\n")]
        seen = Counter(int(line) for line in lines if line)
        assert set(seen) == set(range(total))
        assert sum(seen.values()) - total <= rounds * 2 * 7
        assert watch.parked() == []


def test_killed_workers_lose_nothing(tmp_path: Path) -> None:
    check_killed(tmp_path, 1, 200)


@pytest.mark.slow
def test_killed_workers_lose_nothing_at_length(tmp_path: Path) -> None:
    check_killed(tmp_path, 10, 2000)


def test_several_are_released_and_extended_at_once(store: events.EventStore, clock: penstock.VirtualClock) -> None:
    subscription = store.subscription("several", visibility_timeout=10.0, max_receives=1)
    store.append("s-1", [Counted(1), Counted(2)])
    deliveries = subscription.receive(wait=0)
    subscription.extend(deliveries, 60.0)
    clock.advance(20)
    assert subscription.receive(wait=0) == []
    subscription.release(deliveries)
    assert [delivery.delivery_count for delivery in subscription.receive(wait=0)] == [2, 2]


@pytest.mark.parametrize("settle", ["nack", "park"])
def test_a_reason_that_is_no_text_settles_nothing(store: events.EventStore, settle: str) -> None:
    subscription = store.subscription("reasons", max_receives=1)
    store.append("s-1", [Counted(1)])
    (delivery,) = subscription.receive(wait=0)
    with pytest.raises(penstock.PenstockError, match="reason"):
        getattr(delivery, settle)(3)
    assert not delivery.settled and subscription.parked() == []
