"""The event store's contract: what appending, reading, truncating and deleting do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import penstock
from penstock import VirtualClock, events
from penstock.errors import ClosedError, ConcurrencyError, InvalidArgumentError, InvalidConfigError, InvalidTypeError


class Placed(events.Event, type="StorePlaced"):
    order_id: str
    cents: int = 0


class Shipped(events.Event, type="StoreShipped"):
    order_id: str

    @property
    def tags(self) -> list[str]:
        return [f"order:{self.order_id}"]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def broker(tmp_path: Path, clock: VirtualClock) -> Iterator[penstock.Broker]:
    with penstock.open(tmp_path / "data", clock=clock, fsync="never") as opened:
        yield opened


@pytest.fixture
def store(broker: penstock.Broker) -> events.EventStore:
    return events.EventStore(broker, "shop")


def placed(count: int, start: int = 0) -> list[Placed]:
    return [Placed(f"o-{number}", number) for number in range(start, start + count)]


def test_versions_count_from_0_and_positions_from_1(store: events.EventStore) -> None:
    assert store.position == 0 and store.version("order-1") == -1
    assert store.append("order-1", placed(3), events.NO_STREAM) == (2, 3)
    assert store.append("order-2", Placed("x")) == (0, 4)
    result = store.append("order-1", placed(2), 2)
    assert (result.version, result.position) == (4, 6)
    assert (store.position, store.version("order-1"), store.version("order-2")) == (6, 4, 0)
    assert [event.position for event in store.read("order-1")] == [1, 2, 3, 5, 6]


def test_what_is_read_is_what_was_appended(store: events.EventStore, clock: VirtualClock) -> None:
    store.append("order-1", [Placed("o", 7), Shipped("o")], metadata={"userId": "u"}, tags=["eu"])
    first, second = store.read("order-1")
    assert (first.stream, first.version, first.position, first.type) == ("order-1", 0, 1, "StorePlaced")
    assert first.event == Placed("o", 7) and first.data == {"order_id": "o", "cents": 7}
    assert (first.tags, second.tags) == (("eu",), ("eu", "order:o"))
    assert first.timestamp.timestamp() == clock.time_ms() / 1000 and first.timestamp_ms == clock.time_ms()
    assert first.metadata == {"traceId": None, "userId": "u"} and first.envelope.source == "shop"
    assert (first.correlation_id, first.causation_id) == (first.message_id, None)
    assert events.Envelope.from_json(first.value) == first.envelope


def test_envelopes_are_stored_byte_for_byte(store: events.EventStore) -> None:
    envelope = events.Envelope.wrap(Placed("ü\n\"'", 1), source="elsewhere", correlation_id="c", causation_id="d")
    store.append("order-1", envelope)
    (event,) = store.read("order-1")
    assert event.value == envelope.to_json() and event.envelope == envelope


@pytest.mark.parametrize(
    ("there", "expected", "actual"),
    [
        (0, events.STREAM_EXISTS, -1),
        (0, 0, -1),
        (2, events.NO_STREAM, 1),
        (2, 0, 1),
        (2, 2, 1),
    ],
)
def test_another_version_than_expected(store: events.EventStore, there: int, expected: object, actual: int) -> None:
    if there:
        store.append("order-1", placed(there))
    with pytest.raises(ConcurrencyError) as refused:
        store.append("order-1", placed(1), expected)  # type: ignore[arg-type]
    assert isinstance(refused.value, events.WrongVersionError)
    assert (refused.value.stream, refused.value.expected_version) == ("order-1", expected)
    assert refused.value.actual_version == actual and store.position == there


def test_many_streams_all_or_none(store: events.EventStore) -> None:
    store.append("a", placed(4))
    results = store.append_many({"a": (placed(2), 3), "b": (Placed("x"), events.ANY)}, tags=["t"])
    assert results == {"a": (5, 6), "b": (0, 7)}
    with pytest.raises(ConcurrencyError):
        store.append_many({"b": (placed(2), 0), "a": (placed(1), 3), "c": (placed(1), events.NO_STREAM)})
    assert store.position == 7 and store.version("c") == -1
    assert [(event.stream, event.version) for event in store.read_all(4)] == [("a", 4), ("a", 5), ("b", 0)]


def test_the_same_envelopes_again_are_answered_with_the_first_result(store: events.EventStore) -> None:
    some = [events.Envelope.wrap(event, source="s") for event in placed(3)]
    first = store.append("a", some, events.NO_STREAM)
    store.append("a", placed(2))
    for expected in (events.NO_STREAM, events.ANY, events.STREAM_EXISTS):
        assert store.append("a", some, expected) == first
    assert store.append_many({"a": (some, events.NO_STREAM)}) == {"a": first}
    later = [events.Envelope.wrap(event, source="s") for event in placed(1)]
    assert store.append("a", later, 4) == store.append("a", later, 4) == (5, 6)
    with pytest.raises(ConcurrencyError):
        store.append("a", [*some, *later], events.NO_STREAM)
    assert store.position == 6


def test_reading_a_part(store: events.EventStore, clock: VirtualClock) -> None:
    for number in range(6):
        store.append("a", placed(2, number * 2))
        store.append("b", placed(1))
        clock.advance(1)
    versions = [event.version for event in store.read("a")]
    assert versions == list(range(12))
    assert [event.version for event in store.read("a", 3, 7)] == [3, 4, 5, 6, 7]
    assert [event.version for event in store.read("a", 3, 7, backwards=True, limit=2)] == [7, 6]
    assert [event.version for event in store.read("a", backwards=True, limit=3)] == [11, 10, 9]
    assert [event.version for event in store.read("a", limit=0)] == list(store.read("nobody")) == []
    time = next(store.read("a", 4)).timestamp
    assert [event.version for event in store.read("a", until=time)][-1] == 5
    assert next(event.version for event in store.read("a", until=time, backwards=True)) == 5
    assert [event.position for event in store.read_all(3, limit=2)] == [4, 5]
    assert [event.position for event in store.read_all(backwards=True, limit=2)] == [18, 17]
    assert [event.position for event in store.read_all(after=2, until=4)] == [3, 4]
    assert [event.position for event in store.read_all(until=time)][-1] == 9


def test_reading_from_the_middle_of_a_batch_of_two_streams(store: events.EventStore) -> None:
    for start in (0, 100):
        parts = {name: ([Placed(f"{name}-{n}", n) for n in range(start, start + 100)], events.ANY) for name in "ab"}
        store.append_many(parts)
    for name in "ab":
        for first in (0, 1, 50, 99, 100, 101, 150, 199, 200):
            found = [(event.version, event.event.order_id) for event in store.read(name, first)]
            assert found == [(n, f"{name}-{n}") for n in range(first, 200)]
            assert [event.version for event in store.read(name, first, first + 1)] == [
                *range(first, min(first + 2, 200))
            ]


def test_categories_and_streams(store: events.EventStore) -> None:
    store.append("order-1", placed(1))
    store.append("customer-9", placed(1))
    store.append("order-2-b", placed(2))
    store.append("order", placed(1))
    store.append("orders-1", placed(1))
    assert [event.stream for event in store.read_category("order")] == ["order-1", "order-2-b", "order-2-b", "order"]
    assert [event.position for event in store.read_category("order", after=3, limit=1)] == [4]
    assert list(store.streams("order")) == ["order-1", "order-2-b", "order"]
    for name in ("order-22-b", "order-2", "-2-b", "-2"):
        store.append(name, placed(1))
    assert list(store.streams("order-2")) == ["order-2-b", "order-2"] and list(store.streams("order-2-b-c")) == []
    assert list(store.streams("-2")) == ["-2-b", "-2"] and list(store.streams("order-")) == []
    with store.subscribe(category="order-2", timeout=0) as subscription:
        assert [event.stream for event in subscription] == ["order-2-b", "order-2-b", "order-2"]
    store.delete("order-1")
    store.tombstone("customer-9")
    assert list(store.streams()) == ["order-2-b", "order", "orders-1", "order-22-b", "order-2", "-2-b", "-2"]


def test_queries_by_types_and_tags(store: events.EventStore) -> None:
    store.append("a", [Placed("1"), Shipped("1"), Placed("2")], tags=["eu"])
    store.append("b", [Shipped("2"), Shipped("1")])

    def found(query: events.Query, **options: int) -> list[int]:
        return [event.position for event in store.query(query, **options)]

    assert found(events.Query(types=[Shipped])) == [2, 4, 5]
    assert found(events.Query(types=[Shipped, "StorePlaced"])) == [1, 2, 3, 4, 5]
    assert found(events.Query(tags=["order:1"])) == [2, 5]
    assert found(events.Query(types=[Shipped], tags=["order:1", "eu"])) == [2]
    assert found(events.Query(types=[Placed]) | events.Query(tags=["order:2"])) == [1, 3, 4]
    assert found(events.Query(types=[Shipped]), after=2, limit=1) == [4]
    assert found(events.Query(tags=["nothing"])) == []


def test_a_consistency_boundary(store: events.EventStore) -> None:
    query = events.Query(types=[Placed], tags=["customer:7"])
    first = store.append_if(Placed("1"), tags=["customer:7"], unless=query, after=0)
    assert first.position == 1
    with pytest.raises(ConcurrencyError) as refused:
        store.append_if(Placed("2"), tags=["customer:7"], unless=query, after=0)
    assert isinstance(refused.value, events.WrongVersionError) and refused.value.position == 1
    store.append("other", Placed("3"), tags=["customer:8"])
    assert store.append_if(Placed("2"), tags=["customer:7"], unless=query, after=1, stream="mine") == (0, 3)
    assert [event.stream for event in store.query(query)] == ["$tagged", "mine"]


def test_truncation_and_limits(store: events.EventStore, clock: VirtualClock) -> None:
    store.append("a", placed(10))
    store.truncate("a", before_version=5)
    assert [event.version for event in store.read("a")] == [5, 6, 7, 8, 9]
    store.set_limits("a", max_count=3)
    assert [event.version for event in store.read("a")] == [7, 8, 9]
    clock.advance(60)
    store.append("a", placed(1))
    store.set_limits("a", max_age=timedelta(seconds=30))
    assert [event.version for event in store.read("a")] == [10]
    store.set_limits("a")
    assert [event.version for event in store.read("a")] == [5, 6, 7, 8, 9, 10]
    assert len(list(store.read_all())) == 11 and store.version("a") == 10


def test_a_deleted_stream_goes_on_when_it_is_appended_to(store: events.EventStore) -> None:
    store.delete("a")
    assert store.position == 0
    store.append("a", placed(3))
    store.delete("a")
    assert store.version("a") == -1 and list(store.read("a")) == []
    with pytest.raises(ConcurrencyError):
        store.append("a", placed(1), events.STREAM_EXISTS)
    assert store.append("a", placed(2), events.NO_STREAM).version == 4
    assert [event.version for event in store.read("a")] == [3, 4]
    store.delete("a")
    assert store.append("a", placed(1), 4).version == 5


def test_a_tombstone_is_for_ever(store: events.EventStore) -> None:
    store.append("a", placed(3))
    store.tombstone("a")
    for call in (store.read, store.version, store.delete, store.tombstone):
        with pytest.raises(events.StreamDeletedError, match="'a'"):
            call("a")
    with pytest.raises(events.StreamDeletedError):
        store.append("a", placed(1))
    with pytest.raises(events.StreamDeletedError):
        store.append_many({"b": (placed(1), events.ANY), "a": (placed(1), events.ANY)})
    assert store.version("b") == -1


def test_a_store_is_the_same_for_everybody(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as one, penstock.open(tmp_path / "data") as two:
        first, second = events.EventStore(one, "shop"), events.EventStore(two, "shop")
        first.append("a", placed(2))
        assert second.append("a", placed(1), 1) == (2, 3)
        with pytest.raises(ConcurrencyError):
            first.append("a", placed(1), 1)
        assert [event.version for event in first.read("a")] == [0, 1, 2]
        assert events.EventStore(one, "other").position == 0
    with penstock.open(tmp_path / "data") as again:
        store = events.EventStore(again, "shop")
        assert store.append("a", placed(1), 2).version == 3


def test_waiting_for_events(store: events.EventStore) -> None:
    assert not store.wait(0, timeout=0)
    waiter = threading.Thread(target=store.wait, args=(0, 1e6))
    waiter.start()
    store.append("a", placed(1))
    waiter.join(30)
    assert not waiter.is_alive() and store.wait(0, timeout=0) and not store.wait(1, timeout=0)


def test_events_carry_on_what_caused_them(store: events.EventStore) -> None:
    cause = events.Envelope.wrap(Placed("1"), source="s", metadata={"traceId": "t"})
    with events.handling(cause):
        store.append("a", placed(2))
    for event in store.read("a"):
        assert (event.correlation_id, event.causation_id) == (cause.correlation_id, cause.message_id)
        assert event.metadata["traceId"] == "t"


def test_foreign_records_in_the_topic_are_passed_over(broker: penstock.Broker, store: events.EventStore) -> None:
    store.append("a", placed(1))
    broker.topic("shop").append(b"not an event", key=b"a")
    broker.topic("shop").append(b"not an event", headers=[("version", None)])
    assert store.append("a", placed(1), 0) == (1, 4)
    assert [event.position for event in store.read("a")] == [event.position for event in store.read_all()] == [1, 4]


def test_a_topic_that_forgets_is_no_store(broker: penstock.Broker) -> None:
    broker.create_topic("short", cleanup_policy="delete")
    broker.create_topic("wide", partitions=2, cleanup_policy="")
    for name in ("short", "wide"):
        with pytest.raises(InvalidConfigError, match=name):
            events.EventStore(broker, name)


def test_what_is_refused(store: events.EventStore) -> None:
    for call, error in [
        (lambda: store.append("", placed(1)), InvalidTypeError),
        (lambda: store.append("a", []), InvalidArgumentError),
        (lambda: store.append("a", [object()]), InvalidTypeError),  # type: ignore[list-item]
        (lambda: store.append("a", placed(1), -1), InvalidArgumentError),
        (lambda: store.append("a", placed(1), True), InvalidArgumentError),
        (lambda: store.append("a", placed(1), tags="word"), InvalidTypeError),
        (lambda: store.append("a", placed(1), tags=[""]), InvalidTypeError),
        (lambda: store.append_many({}), InvalidArgumentError),
        (lambda: store.append_if(placed(1), unless=None), InvalidTypeError),  # type: ignore[arg-type]
        (lambda: store.read("a", -1), InvalidArgumentError),
        (lambda: store.read("a", limit=-1), InvalidArgumentError),
        (lambda: store.read("a", 1.5), InvalidTypeError),  # type: ignore[arg-type]
        (lambda: store.query("x"), InvalidTypeError),  # type: ignore[arg-type]
        (lambda: events.Query(), InvalidArgumentError),
        (lambda: events.Query(types=[int]), InvalidTypeError),  # type: ignore[list-item]
        (lambda: store.truncate("a", -1), InvalidArgumentError),
        (lambda: store.set_limits("a", max_count=0), InvalidArgumentError),
        (lambda: store.set_limits("a", max_age=-1.0), InvalidArgumentError),
    ]:
        with pytest.raises(error):
            call()
    assert store.position == 0


def test_a_closed_store(broker: penstock.Broker, store: events.EventStore) -> None:
    store.close()
    store.close()
    with pytest.raises(ClosedError):
        store.append("a", placed(1))
    with pytest.raises(ClosedError):
        store.read("a")
