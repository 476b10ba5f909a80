"""A full disk under inbox, outbox, projection, event store and sagas: typed, nothing half done, and on it goes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import DiskFullError, events

TEXT = "x" * 20_000
MANY = 10_000


class DiskFilled(events.Event):
    number: int
    text: str = TEXT


class Filled(events.Projection):
    def setup(self, db: Any) -> None:
        db.execute("CREATE TABLE filled (number INTEGER, text TEXT)")

    @events.applies(DiskFilled)
    def _(self, db: Any, event: DiskFilled) -> None:
        db.execute("INSERT INTO filled VALUES (?, ?)", (event.number, event.text))


def until_full(act: Callable[[int], object]) -> int:
    """How often `act(number)` worked before the disk was full."""
    for number in range(MANY):
        try:
            act(number)
        except DiskFullError:
            for _ in range(2):
                with pytest.raises(DiskFullError):
                    act(number)
            return number
    raise AssertionError("the disk was never full")


def numbers(connection: sqlite3.Connection, table: str) -> list[int]:
    return [row[0] for row in connection.execute(f"SELECT number FROM {table} ORDER BY number")]


def test_inbox(small_disk: Path, fill: Callable[..., Path]) -> None:
    with events.Inbox(small_disk / "app.db", group="g") as inbox:
        inbox.connection.execute("CREATE TABLE effects (number INTEGER, text TEXT)")

        def handle(number: int) -> None:
            with inbox.once(f"m{number}") as first:
                assert first
                inbox.connection.execute("INSERT INTO effects VALUES (?, ?)", (number, TEXT))

        ballast = fill(small_disk, 1 << 20)
        done = until_full(handle)
        assert done > 10 and not inbox.connection.in_transaction
        assert numbers(inbox.connection, "effects") == list(range(done))
        assert inbox.seen(f"m{done - 1}") and not inbox.seen(f"m{done}")
        ballast.unlink()
        handle(done)
        assert inbox.remember("other") == 1
        assert numbers(inbox.connection, "effects") == list(range(done + 1))


def test_inbox_of_a_connection(small_disk: Path, fill: Callable[..., Path]) -> None:
    connection = sqlite3.connect(small_disk / "app.db")
    inbox = events.Inbox(connection, group="g")
    ballast = fill(small_disk)
    done = until_full(lambda number: inbox.remember(*(f"{number}-{part}" for part in range(1000))))
    assert not inbox.seen(f"{done}-0") and not inbox.seen(f"{done}-999") and not connection.in_transaction
    ballast.unlink()
    assert inbox.remember(f"{done}-0") == 1
    connection.close()


@pytest.mark.parametrize("kind", [events.Inbox, events.Outbox])
def test_a_database_cannot_be_made(small_disk: Path, fill: Callable[..., Path], kind: type) -> None:
    ballast = fill(small_disk)
    with pytest.raises(DiskFullError):
        kind(small_disk / "app.db")
    ballast.unlink()
    kind(small_disk / "app.db").close()


def test_outbox_rows_stay_until_there_is_room_for_the_topic(small_disk: Path, fill: Callable[..., Path]) -> None:
    with penstock.open(small_disk / "data") as broker, events.Outbox(small_disk / "app.db") as outbox:
        broker.create_topic("events", segment_bytes=1 << 20)
        outbox.connection.execute("BEGIN")
        for number in range(50):
            outbox.add(DiskFilled(number))
        outbox.connection.execute("COMMIT")
        ballast = fill(small_disk, 1 << 19)
        for _ in range(2):
            with pytest.raises(DiskFullError):
                outbox.relay(broker, batch_size=10)
        ballast.unlink()
        outbox.relay(broker, batch_size=10)
        assert outbox.pending() == 0
        with broker.consumer() as consumer:
            consumer.assign([penstock.TopicPartition("events", 0)])
            stored: list[int] = []
            while records := consumer.poll(timeout=0):
                stored += [events.Envelope.from_json(record.value or b"").data["number"] for record in records]
        assert stored == list(range(50))


def test_outbox_add(small_disk: Path, fill: Callable[..., Path]) -> None:
    with events.Outbox(small_disk / "app.db") as outbox:
        ballast = fill(small_disk, 1 << 20)
        done = until_full(lambda number: outbox.add(DiskFilled(number)))
        assert outbox.pending() == done
        ballast.unlink()
        outbox.add(DiskFilled(done))
        assert outbox.pending() == done + 1


def test_projection(small_disk: Path, tmp_path: Path, fill: Callable[..., Path]) -> None:
    with penstock.open(tmp_path / "data") as broker:
        store = events.EventStore(broker, "shop")
        store.append("s", [DiskFilled(number) for number in range(50)])
        with events.Projector(store, Filled(), small_disk / "model.db", batch_size=10) as projector:
            ballast = fill(small_disk, 1 << 19)
            for _ in range(2):
                with pytest.raises(DiskFullError):
                    projector.run_once()
            done = projector.position
            assert 0 < done < 50 and numbers(projector.database, "filled") == list(range(done))
            ballast.unlink()
            projector.run_once()
            assert numbers(projector.database, "filled") == list(range(50))
            ballast = fill(small_disk, 1 << 19)
            with pytest.raises(DiskFullError):
                projector.rebuild()
            ballast.unlink()
            projector.database.execute("DELETE FROM filled")
            assert projector.rebuild() == 50
            assert numbers(projector.database, "filled") == list(range(50))


def test_event_store(small_disk: Path, fill: Callable[..., Path]) -> None:
    with penstock.open(small_disk / "data") as broker:
        store = events.EventStore(broker, "shop")
        store.append("first", DiskFilled(0))
        ballast = fill(small_disk, 1 << 19)
        done = until_full(lambda number: store.append(f"s{number}", [DiskFilled(number), DiskFilled(number)]))
        assert [event.event.number for event in store.read_all()] == [0, *(n for n in range(done) for _ in range(2))]
        ballast.unlink()
        store.append(f"s{done}", [DiskFilled(done), DiskFilled(done)])
        assert store.position == 1 + 2 * (done + 1)
    with penstock.open(small_disk / "data") as broker:
        assert len(list(events.EventStore(broker, "shop").read_all())) == 1 + 2 * (done + 1)


def test_sagas(small_disk: Path, fill: Callable[..., Path]) -> None:
    ran: list[int] = []
    with penstock.open(small_disk / "data") as broker, events.Sagas(broker, partitions=1) as sagas:

        @sagas.define("fill")
        def fill_up(saga: Any, number: int) -> int:
            saga.step(lambda: ran.append(number) or TEXT)
            return number

        def start(number: int) -> None:
            sagas.start("fill", number, saga_id=f"saga-{number}")
            sagas.run_until_idle()

        start(0)
        ballast = fill(small_disk, 1 << 19)
        done = 1 + until_full(lambda number: start(number + 1))
        ballast.unlink()
        start(MANY)
        sagas.run_until_idle()
        for number in [*range(done), MANY]:
            assert sagas.inspect(f"saga-{number}").status == "completed"
    with penstock.open(small_disk / "data") as broker, events.Sagas(broker, partitions=1) as sagas:
        assert sagas.inspect(f"saga-{MANY}").status == "completed"
