"""Projections into every kind of database, from a store and from a topic: once each, through deaths and rivals."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from children import Child

import penstock
from penstock import InvalidArgumentError, InvalidConfigError, InvalidTypeError, VirtualClock, events
from penstock.events import sql as sql_module

from .database_kinds import OPENERS


class SaleMade(events.Event):
    item: str
    cents: int


class SaleUndone(events.Event):
    item: str
    cents: int


class SaleLooked(events.Event):
    item: str


class Sales(events.Projection):
    """Into SQL, by any driver."""

    def __init__(self, style: str = "?") -> None:
        self.style = style
        self.fails_at: int | None = None

    def execute(self, db: Any, statement: str, *values: Any) -> None:
        cursor = db.cursor()
        cursor.execute(statement.replace("?", self.style), values)
        cursor.close()

    def setup(self, db: Any) -> None:
        self.execute(db, "CREATE TABLE sales (item TEXT, cents INTEGER)")

    def reset(self, db: Any) -> None:
        self.execute(db, "DELETE FROM sales")

    @events.applies(SaleMade)
    def _(self, db: Any, event: SaleMade, envelope: events.Envelope) -> None:
        if event.cents == self.fails_at:
            raise ValueError(f"cannot take {event.cents}")
        assert envelope.type == "SaleMade"
        self.execute(db, "INSERT INTO sales VALUES (?, ?)", event.item, event.cents)

    @events.applies(SaleUndone)
    def _(self, db: Any, event: SaleUndone) -> None:
        self.execute(db, "INSERT INTO sales VALUES (?, ?)", event.item, -event.cents)


class Totals(events.Projection):
    """Into a mapping."""

    @events.applies(SaleMade)
    def _(self, db: dict[str, int], event: SaleMade) -> None:
        db[event.item] = db.get(event.item, 0) + event.cents


class Count(events.Projection):
    """Its own state."""

    name = "count"

    def __init__(self) -> None:
        self.seen: list[str] = []

    @events.applies(SaleMade, SaleUndone)
    def _(self, event: events.Event, envelope: events.Envelope) -> None:
        self.seen.append(envelope.type)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def broker(tmp_path: Path, clock: VirtualClock) -> Iterator[penstock.Broker]:
    with penstock.open(tmp_path / "data", fsync="never", clock=clock) as opened:
        yield opened


@pytest.fixture
def store(broker: penstock.Broker) -> events.EventStore:
    return events.EventStore(broker, "shop")


@pytest.fixture(params=["path", *OPENERS])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / "model.db"
    if request.param == "path":
        yield path
        return
    connection = OPENERS[request.param](path)
    yield connection
    connection.close()


def sales(database: Any) -> list[tuple[str, int]]:
    connection = sqlite3.connect(database) if isinstance(database, Path) else database
    cursor = connection.cursor()
    cursor.execute("SELECT item, cents FROM sales ORDER BY rowid")
    found = cursor.fetchall()
    cursor.close()
    if connection is not database:
        connection.close()
    else:
        connection.rollback()
    return found


def projection_for(database: Any) -> Sales:
    return Sales("%s" if type(database).__name__ == "FormatConnection" else "?")


def sell(store: events.EventStore, *cents: int) -> int:
    return store.append("s-1", [SaleMade("tea", one) for one in cents]).position


def test_events_are_applied_once(store: events.EventStore, database: Any) -> None:
    sell(store, 1, 2, 3)
    store.append("s-2", [SaleLooked("tea"), SaleUndone("tea", 2)])
    with events.Projector(store, projection_for(database), database, batch_size=2) as projector:
        assert projector.run_once() == 5
        assert projector.run_once() == 0
        assert projector.position == store.position == 5
        last = sell(store, 4)
        assert projector.lag() == 1 and projector.run_once() == 1
        assert projector.wait_for(last) and projector.wait_for()
        assert sales(database) == [("tea", 1), ("tea", 2), ("tea", 3), ("tea", -2), ("tea", 4)]
    if isinstance(database, Path):
        with events.Projector(store, Sales(), database) as again:
            assert again.position == 6 and again.run_once() == 0


def test_a_failure_stops_at_its_event(store: events.EventStore, database: Any) -> None:
    sell(store, 1, 2, 3, 4)
    projection = projection_for(database)
    projection.fails_at = 3
    with events.Projector(store, projection, database) as projector:
        with pytest.raises(ValueError, match="cannot take 3"):
            projector.run_once()
        assert projector.position == 2
        projection.fails_at = None
        assert projector.run_once() == 2
    assert [cents for _, cents in sales(database)] == [1, 2, 3, 4]


def test_a_rebuild_replaces_what_is_there(store: events.EventStore, database: Any) -> None:
    sell(store, 1, 2)
    with events.Projector(store, projection_for(database), database) as projector:
        projector.run_once()
        cursor = projector._target.db.cursor()
        cursor.execute("UPDATE sales SET cents = 99")  # somebody broke it
        projector._target.db.commit()
        sell(store, 3)
        assert projector.rebuild() == 3
        assert [cents for _, cents in sales(database)] == [1, 2, 3]
        sell(store, 4)
        assert projector.run_once() == 1
    assert [cents for _, cents in sales(database)] == [1, 2, 3, 4]


def test_a_rebuild_that_fails_leaves_the_live_one(store: events.EventStore, database: Any) -> None:
    sell(store, 1, 2)
    projection = projection_for(database)
    with events.Projector(store, projection, database) as projector:
        projector.run_once()
        projection.fails_at = 2
        with pytest.raises(ValueError, match="cannot take 2"):
            projector.rebuild()
        assert projector.position == 2
        assert [cents for _, cents in sales(database)] == [1, 2]
    if isinstance(database, Path):
        assert [path.name for path in database.parent.glob("*rebuild*")] == []


def test_a_rebuild_takes_a_new_schema(store: events.EventStore, tmp_path: Path) -> None:
    class Wider(Sales):
        name = "Sales"

        def setup(self, db: Any) -> None:
            db.execute("CREATE TABLE sales (item TEXT, cents INTEGER, euros AS (cents / 100.0))")
            db.execute("CREATE INDEX by_item ON sales (item)")

        @events.applies(SaleMade)
        def _(self, db: Any, event: SaleMade) -> None:
            db.execute("INSERT INTO sales (item, cents) VALUES (?, ?)", (event.item, event.cents))

    path = tmp_path / "model.db"
    sell(store, 150)
    with events.Projector(store, Sales(), path) as old:
        old.run_once()
    with events.Projector(store, Wider(), path) as new:
        assert new.position == 1
        new.rebuild()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT euros FROM sales INDEXED BY by_item WHERE item = 'tea'").fetchall() == [(1.5,)]
    connection.close()


def test_a_rebuild_beside_a_live_one(store: events.EventStore, tmp_path: Path) -> None:
    path = tmp_path / "model.db"
    stop = threading.Event()

    def keep_selling() -> None:
        number = 0
        while not stop.wait(0.001):  # slower than a rebuild
            number += 1
            sell(store, number)

    with events.Projector(store, Sales(), path) as live, events.Projector(store, Sales(), path) as other:
        live.start()
        seller = threading.Thread(target=keep_selling)
        seller.start()
        try:
            for _ in range(5):
                other.rebuild()
        finally:
            stop.set()
            seller.join()
        live.wait_for(timeout=20)
        live.stop()
    assert [cents for _, cents in sales(path)] == list(range(1, store.position + 1))


def test_memory(store: events.EventStore, broker: penstock.Broker) -> None:
    sell(store, 1, 2)
    model: dict[str, int] = {}
    count = Count()
    first = events.Projector(store, Totals(), model)
    second = events.Projector(store, count)
    assert (first.run_once(), second.run_once()) == (2, 2)
    store.append("s", SaleUndone("tea", 1))
    assert (first.run_once(), second.run_once()) == (1, 1)
    assert model == {"tea": 3} and count.seen == ["SaleMade", "SaleMade", "SaleUndone"]
    model["tea"] = 100
    count.seen.clear()
    assert (first.rebuild(), second.rebuild()) == (3, 3)
    assert model == {"tea": 3} and count.seen == ["SaleMade", "SaleMade", "SaleUndone"]
    assert (first.run_once(), second.run_once(), second.name) == (0, 0, "count")


def test_memory_after_a_failure_goes_on_behind_it(store: events.EventStore) -> None:
    class Strict(Totals):
        broken = True

        @events.applies(SaleUndone)
        def _(self, db: dict[str, int], event: SaleUndone) -> None:
            if self.broken:
                raise ValueError("not yet")

    sell(store, 1, 2)
    store.append("s", SaleUndone("tea", 1))
    sell(store, 5)
    model: dict[str, int] = {}
    projection = Strict()
    projector = events.Projector(store, projection, model)
    with pytest.raises(ValueError, match="not yet"):
        projector.run_once()
    assert model == {"tea": 3} and projector.position == 2
    projection.broken = False
    projector.run_once()
    assert model == {"tea": 8}


@pytest.mark.parametrize("partitions", [1, 3])
def test_from_the_topic_of_a_bus(broker: penstock.Broker, database: Any, partitions: int) -> None:
    with events.EventBus(broker, "x", topic="sales", partitions=partitions) as bus:
        bus.publish_many([SaleMade("tea", number) for number in range(50)])
        bus.broker.topic("sales").append(b"no event")
        with events.Projector(bus, projection_for(database), database, batch_size=7) as projector:
            assert projector.run_once() == 51
            bus.publish(SaleMade("tea", 50))
            assert projector.lag() == 1
            assert projector.run_once() == 1 and projector.wait_for()
            assert sum(projector.position) == 52
            projector.rebuild()
            with pytest.raises(InvalidTypeError, match="next offset"):
                projector.wait_for(3)
            for wrong in (-1, None):
                with pytest.raises(InvalidArgumentError, match="position"):
                    projector.wait_for([wrong] * len(projector.position))
        assert sorted(cents for _, cents in sales(database)) == list(range(51))


def test_unknown_types_are_passed_over(store: events.EventStore, broker: penstock.Broker) -> None:
    envelope = events.Envelope.wrap(SaleMade("tea", 1), "x")
    raw = envelope.to_json().replace(b'"SaleMade"', b'"NobodyKnowsSales"')
    store.append("s", events.Envelope.from_json(raw))
    model: dict[str, int] = {}
    assert events.Projector(store, Totals(), model).run_once() == 1 and model == {}


def test_waiting_and_lag(store: events.EventStore, clock: VirtualClock) -> None:
    projector = events.Projector(store, Totals(), {})
    assert projector.lag() == 0 and projector.lag().seconds == 0
    position = sell(store, 1, 2)
    clock.advance(7)
    lag = projector.lag()
    assert (lag, lag.events, lag.seconds) == (2, 2, 7.0)
    timer = threading.Timer(0.05, clock.advance, [2])
    timer.start()
    with pytest.raises(InvalidArgumentError, match="position is -1"):
        projector.wait_for(-1)
    with pytest.raises(penstock.WaitTimeoutError, match="is at 0, not at 2"):
        projector.wait_for(position, timeout=1.0)
    timer.join()


def test_a_running_projector_follows(store: events.EventStore, tmp_path: Path) -> None:
    path = tmp_path / "model.db"
    with events.Projector(store, Sales(), path) as projector, events.Projector(store, Sales(), path) as watcher:
        projector.start()
        with pytest.raises(InvalidConfigError, match="runs already"):
            projector.start()
        for number in range(20):
            position = sell(store, number)
            projector.wait_for(position, timeout=20)
            watcher.wait_for(position, timeout=20)
            assert len(sales(path)) == number + 1


def test_what_fails_for_good_ends_the_run(store: events.EventStore) -> None:
    class Bad(events.Projection):
        @events.applies(SaleMade)
        def _(self, event: SaleMade) -> None:
            raise KeyError("bad")

    sell(store, 1)
    projector = events.Projector(store, Bad(), {}, retry=events.Retry(max_attempts=2, delay=0))
    with pytest.raises(KeyError):
        projector.run()
    projector.start()
    assert projector._thread is not None
    projector._thread.join(20)
    with pytest.raises(KeyError):
        projector.stop()
    projector.stop()


def test_rivals_share_the_work(store: events.EventStore, tmp_path: Path) -> None:
    path = tmp_path / "model.db"
    with events.Projector(store, Sales(), path, batch_size=3) as one:
        with events.Projector(store, Sales(), path, batch_size=5) as two:
            one.start()
            two.start()
            for number in range(60):
                sell(store, number)
            one.wait_for(timeout=20)
            two.wait_for(timeout=20)
    assert [cents for _, cents in sales(path)] == list(range(60))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(1, 9))
def test_an_end_at_each_step(
    store: events.EventStore, database: Any, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sell(store, *range(6))
    projector = events.Projector(store, projection_for(database), database, batch_size=3)
    left = [step]

    def fault(name: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed(name)

    monkeypatch.setattr(sql_module, "fault", fault)
    with pytest.raises(Killed):
        projector.run_once()
    projector.close()
    monkeypatch.undo()
    with events.Projector(store, projection_for(database), database, batch_size=4) as again:
        again.run_once()
    assert [cents for _, cents in sales(database)] == list(range(6))


RUNNER = """
import os, sys, penstock
from penstock import events
from penstock.events import sql
class SaleMade(events.Event):
    item: str
    cents: int
class Sales(events.Projection):
    def setup(self, db):
        db.execute("CREATE TABLE sales (item TEXT, cents INTEGER)")
    @events.applies(SaleMade)
    def _(self, db, event):
        db.execute("INSERT INTO sales VALUES (?, ?)", (event.item, event.cents))
left = int(sys.argv[3])
def fault(name):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), 9)
with penstock.open(sys.argv[1]) as broker:
    store = events.EventStore(broker, "shop")
    projector = events.Projector(store, Sales(), sys.argv[2], batch_size=3)
    sql.fault = fault
    projector.run_once()
    projector.close()
"""


def test_killed_processes(store: events.EventStore, broker: penstock.Broker, tmp_path: Path) -> None:
    sell(store, *range(12))
    path = tmp_path / "model.db"
    codes = []
    for dies_at in (1, 2, 4, 5, 7, 100):
        codes.append(Child(RUNNER, broker.path, path, dies_at).wait(60))
    assert codes == [-9, -9, -9, -9, -9, 0]
    assert [cents for _, cents in sales(path)] == list(range(12))


def test_bad_arguments(store: events.EventStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidTypeError, match="source is 3"):
        events.Projector(3, Sales())
    with pytest.raises(InvalidTypeError, match="projection is"):
        events.Projector(store, Sales)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="database is int"):
        events.Projector(store, Sales(), 3)
    connection = sqlite3.connect(tmp_path / "model.db")
    projector = events.Projector(store, Sales(), connection)
    connection.execute("CREATE TABLE mine (x)")
    connection.execute("INSERT INTO mine VALUES (1)")
    with pytest.raises(penstock.TransactionStateError, match="open transaction"):
        projector.run_once()
    connection.close()
