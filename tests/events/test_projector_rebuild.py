"""Rebuilding in SQLite: which tables are the projection's, and that all others stay as they are."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import InvalidConfigError, VirtualClock, events


class ItemSold(events.Event):
    item: str
    cents: int


class ItemReturned(events.Event):
    item: str


@pytest.fixture
def store(tmp_path: Path) -> Iterator[events.EventStore]:
    with penstock.open(tmp_path / "data", fsync="never", clock=VirtualClock()) as broker:
        yield events.EventStore(broker, "shop")


@pytest.fixture(params=["file", "memory"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "model.db" if request.param == "file" else ":memory:")
    yield connection
    connection.close()
    assert list(tmp_path.glob("*rebuild*")) == []


class Inserts(events.Projection):
    """Has no setup: the tables are the user's."""

    @events.applies(ItemSold)
    def _(self, db: Any, event: ItemSold) -> None:
        db.execute("INSERT INTO sold (item, cents) VALUES (?, ?)", (event.item, event.cents))

    @events.applies(ItemReturned)
    def _(self, db: Any, event: ItemReturned) -> None:
        db.execute("DELETE FROM sold WHERE item = ?", (event.item,))


def rows(db: sqlite3.Connection, statement: str) -> list[Any]:
    return db.execute(statement).fetchall()


def projected(store: events.EventStore, projection: events.Projection, db: sqlite3.Connection) -> events.Projector:
    db.commit()
    projector = events.Projector(store, projection, db, batch_size=3)
    projector.run_once()
    return projector


def sell(store: events.EventStore) -> None:
    store.append("s", [ItemSold("tea", 3), ItemSold("cup", 5), ItemReturned("cup"), ItemSold("pot", 9)])


def test_tables_of_the_user(store: events.EventStore, db: sqlite3.Connection) -> None:
    db.executescript("""
        CREATE TABLE sold (item TEXT, cents INTEGER);
        CREATE UNIQUE INDEX by_item ON sold (item);
        CREATE TABLE mine (x);
        INSERT INTO mine VALUES (1);
        CREATE VIEW dear AS SELECT * FROM sold WHERE cents > 5;
    """)
    sell(store)
    schema = sorted(rows(db, "SELECT name, sql FROM sqlite_master"))
    with projected(store, Inserts(), db) as projector:
        good = rows(db, "SELECT rowid, * FROM sold")
        db.execute("UPDATE sold SET cents = 99")
        db.execute("INSERT INTO sold VALUES ('other', 1)")
        db.commit()
        assert projector.rebuild() == 4
        assert rows(db, "SELECT rowid, * FROM sold") == good
        assert rows(db, "SELECT * FROM mine") == [(1,)]
        assert rows(db, "SELECT * FROM dear") == [("pot", 9)]
        assert projector.position == 4 and projector.run_once() == 0
        store.append("s", ItemSold("mug", 1))
        assert projector.run_once() == 1
    with pytest.raises(sqlite3.IntegrityError):
        db.execute("INSERT INTO sold VALUES ('tea', 1)")
    db.rollback()
    db.execute("DROP TABLE penstock_checkpoints")
    assert sorted(rows(db, "SELECT name, sql FROM sqlite_master")) == schema


def test_two_projections_of_one_database(store: events.EventStore, db: sqlite3.Connection) -> None:
    class Totals(events.Projection):
        def setup(self, db: Any) -> None:
            db.execute("CREATE TABLE totals (cents)")

        @events.applies(ItemSold)
        def _(self, db: Any, event: ItemSold) -> None:
            db.execute("INSERT INTO totals VALUES (?)", (event.cents,))

    db.execute("CREATE TABLE sold (item, cents)")
    sell(store)
    with projected(store, Inserts(), db) as inserts, projected(store, Totals(), db) as totals:
        db.execute("UPDATE totals SET cents = 0")
        db.commit()
        store.append("s", ItemSold("mug", 1))
        inserts.rebuild()
        assert totals.position == 4 and set(rows(db, "SELECT * FROM totals")) == {(0,)}
        totals.rebuild()
        assert rows(db, "SELECT * FROM totals") == [(3,), (5,), (9,), (1,)]
        assert rows(db, "SELECT cents FROM sold") == [(3,), (9,), (1,)]


def test_tables_that_are_only_read_have_their_rows(store: events.EventStore, db: sqlite3.Connection) -> None:
    class Priced(events.Projection):
        @events.applies(ItemReturned)
        def _(self, db: Any, event: ItemReturned) -> None:  # the third event: the copy has to start over
            (name,) = db.execute("SELECT name FROM names WHERE item = ?", (event.item,)).fetchone()
            db.execute("INSERT INTO returned VALUES (?)", (name,))

    db.execute("CREATE TABLE names (item, name)")
    db.execute("INSERT INTO names VALUES ('cup', 'a cup')")
    db.execute("CREATE TABLE returned (name)")
    sell(store)
    with projected(store, Priced(), db) as projector:
        for _ in range(2):
            projector.rebuild()
            assert rows(db, "SELECT * FROM returned") == [("a cup",)]
            assert rows(db, "SELECT * FROM names") == [("cup", "a cup")]


class Running(events.Projection):
    """Only changes a row that somebody else made."""

    @events.applies(ItemSold)
    def _(self, db: Any, event: ItemSold) -> None:
        db.execute("UPDATE running SET cents = cents + ?", (event.cents,))


class Resettable(Running):
    name = "Running"

    def reset(self, db: Any) -> None:
        db.execute("UPDATE running SET cents = 0")


def test_rows_that_are_only_changed_need_a_reset(store: events.EventStore, db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE running (label, cents)")
    db.execute("INSERT INTO running VALUES ('all', 0)")
    sell(store)
    with projected(store, Running(), db) as projector:
        with pytest.raises(InvalidConfigError, match=r"'running', and never makes any.* reset\(db\)"):
            projector.rebuild()
        assert rows(db, "SELECT * FROM running") == [("all", 17)]
    with projected(store, Resettable(), db) as projector:
        db.execute("UPDATE running SET cents = 3")
        db.commit()
        projector.rebuild()
        assert rows(db, "SELECT * FROM running") == [("all", 17)]


def test_setup_fills_a_table_of_the_user(store: events.EventStore, db: sqlite3.Connection) -> None:
    class Seeded(Running):
        def setup(self, db: Any) -> None:
            db.execute("INSERT INTO running VALUES ('all', 0)")
            db.execute("CREATE INDEX by_label ON running (label)")
            db.execute("CREATE TABLE IF NOT EXISTS other (x)")

    db.execute("CREATE TABLE running (label, cents)")
    db.execute("CREATE TABLE other (x)")
    sell(store)
    with projected(store, Seeded(), db) as projector:
        projector.rebuild()
        projector.rebuild()
    assert rows(db, "SELECT * FROM running INDEXED BY by_label WHERE label = 'all'") == [("all", 17)]


def test_foreign_keys_and_triggers(store: events.EventStore, db: sqlite3.Connection) -> None:
    class Lines(events.Projection):
        @events.applies(ItemSold)
        def _(self, db: Any, event: ItemSold) -> None:
            db.execute("INSERT OR IGNORE INTO orders VALUES (1)")
            db.execute("INSERT INTO lines (order_id, item) VALUES (1, ?)", (event.item,))

        @events.applies(ItemReturned)
        def _(self, db: Any, event: ItemReturned) -> None:
            db.execute("DELETE FROM orders WHERE id = 1")

    db.executescript("""
        PRAGMA foreign_keys=ON;
        CREATE TABLE items (item TEXT PRIMARY KEY);
        INSERT INTO items VALUES ('tea'), ('cup'), ('pot');
        CREATE TABLE orders (id INTEGER PRIMARY KEY);
        CREATE TABLE lines (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            order_id REFERENCES orders ON DELETE CASCADE,
            item REFERENCES items
        );
        CREATE TABLE notes (line REFERENCES lines, note);
        CREATE TABLE seen (item);
        CREATE TRIGGER see AFTER INSERT ON lines BEGIN INSERT INTO seen VALUES (new.item); END;
    """)
    sell(store)
    with projected(store, Lines(), db) as projector:
        db.execute("INSERT INTO notes VALUES (3, 'a note of the user')")
        db.commit()
        projector.rebuild()
        assert rows(db, "SELECT id, item FROM lines") == [(3, "pot")]
        assert rows(db, "SELECT item FROM seen") == [("tea",), ("cup",), ("pot",)]
        assert rows(db, "SELECT note FROM notes") == [("a note of the user",)]
        assert rows(db, "PRAGMA foreign_keys") == [(1,)]
        store.append("s", ItemSold("cup", 1))
        projector.run_once()
        assert rows(db, "SELECT max(id) FROM lines") == [(4,)]
        assert rows(db, "SELECT count(*) FROM seen") == [(4,)]


@pytest.mark.parametrize("of_setup", [True, False])
def test_full_text_and_odd_names(store: events.EventStore, db: sqlite3.Connection, of_setup: bool) -> None:
    def make(db: Any) -> None:
        db.execute("CREATE VIRTUAL TABLE found USING fts5 (item)")
        db.execute('CREATE TABLE "my ""table" ("a b" PRIMARY KEY) WITHOUT ROWID')

    class Found(events.Projection):
        def setup(self, db: Any) -> None:
            if of_setup:
                make(db)

        @events.applies(ItemSold)
        def _(self, db: Any, event: ItemSold) -> None:
            db.execute("INSERT INTO found VALUES (?)", (event.item,))
            db.execute('INSERT INTO "my ""table" VALUES (?)', (event.item,))

    if not of_setup:
        make(db)
    sell(store)
    with projected(store, Found(), db) as projector:
        db.execute("DELETE FROM found")
        db.execute('DELETE FROM "my ""table"')
        db.commit()
        for _ in range(2):
            projector.rebuild()
            assert rows(db, "SELECT item FROM found WHERE found MATCH 'cup OR pot'") == [("cup",), ("pot",)]
            assert rows(db, 'SELECT * FROM "my ""table"') == [("cup",), ("pot",), ("tea",)]


def test_the_connection_is_like_the_users(store: events.EventStore, tmp_path: Path) -> None:
    class Mine(sqlite3.Connection):
        def sold(self) -> int:
            row = self.execute("SELECT count(*) AS count FROM sold").fetchone()
            return int(row["count"])

    class Counted(events.Projection):
        @events.applies(ItemSold)
        def _(self, db: Any, event: ItemSold) -> None:
            db.execute("INSERT INTO sold VALUES (?)", (db.sold(),))

    db = sqlite3.connect(tmp_path / "model.db", factory=Mine)
    db.row_factory = sqlite3.Row
    db.execute("CREATE TABLE sold (number)")
    sell(store)
    with projected(store, Counted(), db) as projector:
        projector.rebuild()
        assert [row["number"] for row in rows(db, "SELECT number FROM sold")] == [0, 1, 2]
    db.close()


def test_what_a_projection_raises_comes_through(store: events.EventStore, db: sqlite3.Connection) -> None:
    class Failing(Inserts):
        fails = False

        @events.applies(ItemReturned)
        def _(self, db: Any, event: ItemReturned) -> None:
            if self.fails:
                raise KeyError("no")

    db.execute("CREATE TABLE sold (item, cents)")
    sell(store)
    projection = Failing()
    with projected(store, projection, db) as projector:
        projection.fails = True
        with pytest.raises(KeyError):
            projector.rebuild()
        db.execute("INSERT INTO sold VALUES ('open', 1)")
        with pytest.raises(penstock.TransactionStateError, match="open transaction"):
            projector.rebuild()
        db.rollback()
        assert len(rows(db, "SELECT * FROM sold")) == 3


def test_two_rebuilds_at_once(store: events.EventStore, tmp_path: Path) -> None:
    path = tmp_path / "model.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE sold (item, cents)")
    for _ in range(50):
        sell(store)
    failed: list[BaseException] = []

    def guarded(rebuild: Callable[[], Any]) -> None:
        try:
            rebuild()
        except BaseException as error:
            failed.append(error)

    projectors = [events.Projector(store, Inserts(), path) for _ in range(4)]
    projectors[0].run_once()
    good = rows(db, "SELECT * FROM sold")
    threads = [threading.Thread(target=guarded, args=(projector.rebuild,)) for projector in projectors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and rows(db, "SELECT * FROM sold") == good
    for projector in projectors:
        projector.close()
    db.close()
