"""Timelines: events of buses and stores, sagas, dead letters; order and causes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import penstock
from penstock import InvalidTypeError, VirtualClock, events


class TripAsked(events.Event):
    trip: str


class TripBooked(events.Event):
    trip: str


class TripPaid(events.Event):
    trip: str


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def broker(tmp_path: Path, clock: VirtualClock) -> Iterator[penstock.Broker]:
    with penstock.open(tmp_path / "data", fsync="never", clock=clock) as opened:
        yield opened


def test_a_timeline_has_everything_in_order(broker: penstock.Broker, clock: VirtualClock) -> None:
    store = events.EventStore(broker, "trips")
    with events.EventBus(broker, "agency", partitions=3) as bus:

        @bus.on(TripAsked, group="booking")
        def book(event: TripAsked) -> None:
            clock.advance(1)
            store.append(f"trip-{event.trip}", TripBooked(event.trip))
            clock.advance(1)
            bus.publish(TripPaid(event.trip))

        @bus.on(TripPaid, group="mail", retry=events.Retry(max_attempts=1))
        def mail(event: TripPaid) -> None:
            raise ValueError("no such address")

        asked = bus.publish(TripAsked("rome"), key="rome")
        bus.publish(TripAsked("oslo"), key="oslo")
        bus.run_until_idle()
        bus.publish(asked)  # the same message once more
    found = events.timeline(broker, asked.correlation_id)
    assert [(entry.kind, entry.what) for entry in found] == [
        ("event", "TripAsked"), ("event", "TripBooked"), ("event", "TripPaid"),
        ("dead letter", "TripPaid given up by mail"),
    ]  # fmt: skip
    assert len(found[0].places) == 2 and found[1].places == ("trips-0@0",)
    assert found.roots() == found[:1] and found.effects(found[0]) == found[1:3] and found.effects(found[2]) == found[3:]
    lines = found.tree().splitlines()
    assert lines[0].startswith("00:00:00.000000 TripAsked  [event, events-") and "    TripPaid given up" in lines[3]
    assert events.timeline(broker, asked.correlation_id, topics=["trips"]) == found[1:2]
    assert events.timeline(broker, "somebody else") == []


def test_sagas_are_part_of_it(broker: penstock.Broker) -> None:
    sagas = events.Sagas(broker)

    @sagas.define("travel")
    def travel(saga: events.Saga, trip: str) -> str:
        return saga.step(lambda: "booked", name="book")  # type: ignore[no-any-return]

    cause = events.Envelope.wrap(TripAsked("rome"), "x")
    with events.handling(cause):
        sagas.start("travel", "rome", saga_id="trip-rome")
    sagas.start("travel", "oslo", saga_id="trip-oslo")
    sagas.run_until_idle()
    for correlation, saga in ((cause.correlation_id, "trip-rome"), ("trip-oslo", "trip-oslo")):
        found = events.timeline(broker, correlation)
        assert found and {entry.message_id for entry in found} == {saga}
        told = [entry.what for entry in found]
        assert told[0].startswith(f"{saga}: start travel") and any("book" in one for one in told)
        assert {entry.kind for entry in found} == {"saga"}


def test_an_effect_stands_after_its_cause(broker: penstock.Broker) -> None:
    late, early = datetime(2030, 1, 2, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
    with events.EventBus(broker, "x") as bus:
        cause = bus.publish(TripAsked("rome"), timestamp=late)
        with events.handling(cause):
            bus.publish(TripBooked("rome"), timestamp=early)  # another machine's clock
    assert [entry.what for entry in events.timeline(broker, cause.correlation_id)] == ["TripAsked", "TripBooked"]


def test_since(broker: penstock.Broker, clock: VirtualClock) -> None:
    with events.EventBus(broker, "x") as bus:
        cause = bus.publish(TripAsked("rome"))
        clock.advance(100)
        with events.handling(cause):
            bus.publish(TripBooked("rome"))
    wanted = [entry.what for entry in events.timeline(broker, cause.correlation_id, since=timedelta(seconds=10))]
    assert wanted == ["TripBooked"]
    at = datetime.fromtimestamp(clock.time_ms() / 1000, UTC)
    assert len(events.timeline(broker, cause.correlation_id, since=at)) == 1
    with pytest.raises(InvalidTypeError, match="time zone"):
        events.timeline(broker, "x", since=datetime(2020, 1, 1))
    with pytest.raises(InvalidTypeError, match="correlation_id"):
        events.timeline(broker, "")


@pytest.mark.parametrize("correlation", ['c"1', "c\\1", "a\nb", "caf\u00e9/1", "\u2028"])
def test_ids_that_json_writes_in_several_ways(broker: penstock.Broker, correlation: str) -> None:
    with events.EventBus(broker, "x") as bus:
        published = bus.publish(TripAsked("rome"), correlation_id=correlation)
        again = events.Envelope.wrap(TripBooked("rome"), "elsewhere", correlation_id=correlation)
        broker.topic("events").append(json.dumps(json.loads(again.to_json())).encode())  # escapes what is not ASCII
        bus.publish(TripAsked("oslo"))
    found = events.timeline(broker, correlation)
    assert [entry.message_id for entry in found] == [published.message_id, again.message_id]


def test_a_long_chain_of_causes_in_any_order(broker: penstock.Broker, clock: VirtualClock) -> None:
    chain: list[events.Envelope] = []
    for number in range(3000):
        cause = chain[-1].message_id if chain else None
        chain.append(
            events.Envelope.wrap(TripAsked(str(number)), "x", correlation_id="c", causation_id=cause, clock=clock)
        )
    broker.create_topic("chain")
    with broker.producer() as producer:
        producer.send_many("chain", [envelope.to_json() for envelope in reversed(chain)])
    found = events.timeline(broker, "c")
    assert [entry.message_id for entry in found] == [envelope.message_id for envelope in chain]
    assert len(str(found).splitlines()) == len(chain)


def test_events_that_cause_each_other_are_shown(broker: penstock.Broker) -> None:
    with events.EventBus(broker, "x") as bus:
        for own, cause in (("1", "2"), ("2", "1"), ("3", "3")):
            bus.publish(TripAsked(own), correlation_id="c", message_id=own, causation_id=cause)
    found = events.timeline(broker, "c")
    assert {entry.message_id for entry in found} == {"1", "2", "3"} and len(str(found).splitlines()) == 3


def test_what_is_no_event_is_left_out(broker: penstock.Broker) -> None:
    with events.EventBus(broker, "x") as bus:
        published = bus.publish(TripAsked("rome"), correlation_id="c")
        for value in (b"c", b'{"c":' * 100_000, b'{"kind":"c"}'):
            broker.topic("events").append(value, key=b"c")
            broker.topic("events").append(value)
    assert [entry.message_id for entry in events.timeline(broker, "c")] == [published.message_id]
