"""The outbox over every kind of connection: in the user's transaction, in order, once, through deaths and rivals."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from children import Child

import penstock
from penstock import InvalidArgumentError, InvalidTypeError, UnknownTopicError, VirtualClock, events
from penstock.events import sql as sql_module

from .database_kinds import OPENERS


class OutboxPaid(events.Event):
    number: int


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def broker(tmp_path: Path, clock: VirtualClock) -> Iterator[penstock.Broker]:
    with penstock.open(tmp_path / "data", fsync="never", clock=clock) as opened:
        opened.create_topic("events", partitions=2)
        yield opened


@pytest.fixture(params=OPENERS)
def connection(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    # the other driver stands on SQLite too, where this is how a key counts up
    monkeypatch.setattr(sql_module.Sql, "serial_key", "INTEGER PRIMARY KEY AUTOINCREMENT")
    opened = OPENERS[request.param](tmp_path / "app.db")
    yield opened
    opened.close()


def numbers(broker: penstock.Broker, topic: str = "events") -> list[int]:
    found = [events.Envelope.from_json(record.value or b"") for record in broker.topic(topic).replay()]
    return [envelope.data["number"] for envelope in found]


def fill(outbox: events.Outbox, connection: Any, *values: int) -> None:
    for number in values:
        outbox.add(OutboxPaid(number), key=f"k{number % 3}")
    connection.commit()


def test_rows_go_with_the_users_transaction(broker: penstock.Broker, connection: Any) -> None:
    outbox = events.Outbox(connection, source="shop")
    cause = events.Envelope.wrap(OutboxPaid(0), "x")
    with events.handling(cause):
        envelope = outbox.add(OutboxPaid(1), key="k", metadata={"userId": "u"})
    connection.commit()
    if getattr(connection, "isolation_level", "") is None:
        connection.execute("BEGIN")
    outbox.add(OutboxPaid(2))
    connection.rollback()
    assert outbox.pending() == 1
    assert outbox.relay(broker) == 1 and outbox.relay(broker) == 0 and outbox.pending() == 0
    (record,) = broker.topic("events").replay()
    stored = events.Envelope.from_json(record.value or b"")
    assert stored == envelope and record.key == b"k"
    assert (stored.source, stored.causation_id, stored.metadata["userId"]) == ("shop", cause.message_id, "u")
    outbox.close()


def test_order_is_kept_by_key_and_batches(broker: penstock.Broker, connection: Any) -> None:
    outbox = events.Outbox(connection)
    broker.create_topic("other")
    fill(outbox, connection, *range(25))
    for number in range(25, 30):
        outbox.add(OutboxPaid(number), topic="other")
    connection.commit()
    with events.EventBus(broker, "x") as bus:
        assert outbox.relay(bus, batch_size=7) == 30
    by_key: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for number in numbers(broker):
        by_key[number % 3].append(number)
    assert by_key == {key: list(range(key, 25, 3)) for key in range(3)}
    assert numbers(broker, "other") == [25, 26, 27, 28, 29]
    outbox.close()


def test_a_topic_that_is_missing_keeps_the_rows(broker: penstock.Broker, connection: Any) -> None:
    outbox = events.Outbox(connection, topic="missing")
    fill(outbox, connection, 1)
    with pytest.raises(UnknownTopicError, match="missing"):
        outbox.relay(broker)
    broker.create_topic("missing")
    assert outbox.relay(broker) == 1 and numbers(broker, "missing") == [1]
    outbox.close()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(1, 14))
def test_an_end_at_each_step_sends_each_event_once(
    broker: penstock.Broker, connection: Any, clock: VirtualClock, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = events.Outbox(connection)
    fill(outbox, connection, *range(10))
    left = [step]

    def fault(name: str) -> None:
        left[0] -= 1
        if left[0] <= 0:  # from here on nothing works: it is dead
            raise Killed(name)

    monkeypatch.setattr(sql_module, "fault", fault)
    with pytest.raises(Killed):
        outbox.relay(broker, batch_size=4)
    monkeypatch.setattr(sql_module, "fault", lambda name: None)
    broker.topic("events").append(b"of somebody else")
    again = events.Outbox(connection)
    if again.relay(broker) == 0:
        assert again.pending(), "the dead one's lease runs"
        connection.rollback()
        clock.advance(11)
        again.relay(broker)
    found = [record.value for record in broker.topic("events").replay() if record.value != b"of somebody else"]
    assert sorted(events.Envelope.from_json(raw or b"").data["number"] for raw in found) == list(range(10))
    outbox.close()
    again.close()


def test_a_former_relay_is_fenced(broker: penstock.Broker, tmp_path: Path, clock: VirtualClock) -> None:
    connection = sqlite3.connect(tmp_path / "app.db")
    slow, fast = events.Outbox(tmp_path / "app.db"), events.Outbox(tmp_path / "app.db")
    writer = events.Outbox(connection)
    fill(writer, connection, 1, 2)
    relay = slow._relay_to(broker, 1, 10)
    assert relay.take_lease() and relay.step() == 1
    assert fast.relay(broker) == 0, "the slow one has the lease"
    clock.advance(11)
    assert fast.relay(broker) == 1
    fill(writer, connection, 3)
    with pytest.raises(penstock.FencedError):
        relay.step()
    assert fast.relay(broker) == 1
    assert sorted(numbers(broker)) == [1, 2, 3]
    for outbox in (slow, fast, writer):
        outbox.close()
    connection.close()


@pytest.mark.parametrize("call", ["relay", "run"])
def test_what_went_wrong_first_is_raised(
    broker: penstock.Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    outbox = events.Outbox(tmp_path / "app.db")
    outbox.add(OutboxPaid(1))
    failing = False

    def fault(name: str) -> None:
        nonlocal failing
        if name == "sent":
            failing = True
            raise penstock.DiskFullError("no room")
        if failing:
            raise penstock.LockedError("somebody has it")

    monkeypatch.setattr(sql_module, "fault", fault)
    with pytest.raises(penstock.DiskFullError, match="no room") as caught:
        getattr(outbox, call)(broker)
    assert caught.value.__notes__ == ["and then drop_lease failed: LockedError: somebody has it"]
    failing = False
    monkeypatch.setattr(sql_module, "fault", lambda name: None)
    assert outbox.relay(broker) == 1 and numbers(broker) == [1], "the lease is its own still"
    outbox.close()


def test_a_lost_connection_does_not_hide_why(tmp_path: Path) -> None:
    class Lost(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> Any:
            if statement.startswith(("DELETE", "ROLLBACK")):
                raise ConnectionError(f"lost at {statement.split()[0]}")
            return super().execute(statement, *values)

    connection = sqlite3.connect(tmp_path / "app.db", factory=Lost, isolation_level=None)
    inbox = events.Inbox(connection)
    with pytest.raises(ConnectionError, match="lost at DELETE") as caught:
        inbox.forget("m")
    assert "rollback failed: ConnectionError: lost at ROLLBACK" in caught.value.__notes__[0]
    connection.close()
    inbox = events.Inbox(connection := sqlite3.connect(tmp_path / "app.db", factory=Lost, isolation_level=None))
    with pytest.raises(ValueError, match="of the user") as failed, inbox.once("m"):
        raise ValueError("of the user")
    assert "rollback failed" in failed.value.__notes__[0]
    connection.close()


def test_a_relay_of_many_batches_keeps_its_lease(
    broker: penstock.Broker, tmp_path: Path, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = sqlite3.connect(tmp_path / "app.db")
    outbox, other = events.Outbox(connection), events.Outbox(tmp_path / "app.db")
    fill(outbox, connection, *range(10))

    def slowly(name: str) -> None:
        if name == "sent":
            clock.advance(4)
            monkeypatch.setattr(sql_module, "fault", lambda name: None)
            assert other.relay(broker) == 0
            monkeypatch.setattr(sql_module, "fault", slowly)

    monkeypatch.setattr(sql_module, "fault", slowly)
    assert outbox.relay(broker, batch_size=2, lease=10.0) == 10
    assert sorted(numbers(broker)) == list(range(10))
    outbox.close()
    other.close()
    connection.close()


def test_a_running_relay_follows_and_another_stands_by(broker: penstock.Broker, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "app.db")
    writer = events.Outbox(connection)
    relays = [events.Outbox(tmp_path / "app.db") for _ in range(2)]
    threads = [threading.Thread(target=relay.run, args=(broker, 0.02)) for relay in relays]
    for thread in threads:
        thread.start()
    with broker.consumer("events") as consumer:
        seen: list[int] = []
        for first in range(0, 30, 10):
            fill(writer, connection, *range(first, first + 10))
            deadline = time.monotonic() + 20
            while len(seen) < first + 10 and time.monotonic() < deadline:
                records = consumer.poll(timeout=0)
                seen += [events.Envelope.from_json(record.value or b"").data["number"] for record in records]
                time.sleep(0.002)
    for relay, thread in zip(relays, threads, strict=True):
        relay.stop()
        thread.join()
        relay.close()
    writer.close()
    connection.close()
    assert sorted(seen) == list(range(30))


RELAY = """
import os, sys, penstock
from penstock import events
from penstock.events import sql
left = int(sys.argv[3])
def fault(name):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), 9)
with penstock.open(sys.argv[1]) as broker, events.Outbox(sys.argv[2]) as outbox:
    sql.fault = fault
    outbox.relay(broker, batch_size=3, lease=0.05)
"""


def test_killed_relays_send_each_event_once(tmp_path: Path) -> None:
    data, path = tmp_path / "data", tmp_path / "app.db"
    connection = sqlite3.connect(path)
    outbox = events.Outbox(connection)
    fill(outbox, connection, *range(9))
    with penstock.open(data) as broker:
        broker.create_topic("events")
    codes = []
    for dies_at in (3, 6, 7, 9, 10, 10_000):
        codes.append(Child(RELAY, data, path, dies_at).wait(60))
        time.sleep(0.06)  # the lease of the dead
    assert codes[-1] == 0 and codes[:3] == [-9, -9, -9]
    with penstock.open(data) as broker:
        assert numbers(broker) == list(range(9))
    outbox.close()
    connection.close()


def test_bad_arguments(broker: penstock.Broker, tmp_path: Path) -> None:
    with events.Outbox(tmp_path / "app.db") as outbox:
        with pytest.raises(InvalidTypeError, match="target is 3"):
            outbox.relay(3)  # type: ignore[arg-type]
        with pytest.raises(InvalidTypeError, match="key is 3"):
            outbox.add(OutboxPaid(1), key=3)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match="source given"):
            outbox.add(events.Envelope.wrap(OutboxPaid(1), "x"), source="y")
        with pytest.raises(InvalidArgumentError, match="lease"):
            outbox.relay(broker, lease=0)
        with pytest.raises(InvalidTypeError, match="an object of an Event class"):
            outbox.add("event")  # type: ignore[arg-type]
        with pytest.raises(penstock.InvalidNameError, match="t/t"):
            outbox.add(OutboxPaid(1), topic="t/t")
        assert outbox.pending() == 0
    with pytest.raises(InvalidTypeError, match="topic is ''"):
        events.Outbox(tmp_path / "app.db", topic="")
