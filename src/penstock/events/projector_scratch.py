"""The SQLite database in which a projection is made anew: what it begins with, and what of it replaces what is live.

A projection's tables are those that its `setup` makes, and those that its methods write to. The second are not known
before they do it: SQLite's authorizer tells. So the scratch database has the live schema, and is made again with what
was learned whenever that changes what it has to begin with: a table that `setup` makes is not there before, one that is
only read has its live rows, one that is written is empty (with `Projection.reset`: as that leaves it). Each table is
learned once, so that this ends.

Thread safety: one thread. Crash policy: the file has no name while it is in use, and goes with the process.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from penstock.errors import InvalidConfigError
from penstock.events.projection import Projection

_SHADOWS = (
    "_data",
    "_idx",
    "_content",
    "_docsize",
    "_config",
    "_segments",
    "_segdir",
    "_stat",
    "_node",
    "_parent",
    "_rowid",
)
"""How the tables of virtual ones end: FTS5, FTS4, R*Tree."""


class Entry(NamedTuple):
    """A row of `sqlite_master`."""

    kind: str
    name: str
    table: str
    statement: str

    @property
    def is_virtual(self) -> bool:
        """Whether it is a virtual table."""
        return self.kind == "table" and self.statement[:14].upper() == "CREATE VIRTUAL"


class LearnedError(Exception):
    """The scratch database did not begin as it has to."""


@dataclass
class Learned:
    """What `setup` and the methods of a projection did to which tables, so far."""

    created: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    inserted: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)

    def authorize(self, action: int, first: str | None, *_: str | None) -> int:
        """SQLite's authorizer: allows everything, and notes it."""
        into = {
            sqlite3.SQLITE_CREATE_TABLE: self.created,
            sqlite3.SQLITE_CREATE_VTABLE: self.created,
            sqlite3.SQLITE_READ: self.read,
            sqlite3.SQLITE_INSERT: self.inserted,
            sqlite3.SQLITE_UPDATE: self.changed,
            sqlite3.SQLITE_DELETE: self.changed,
        }.get(action)
        if into is not None and first:
            into.add(first)
        return sqlite3.SQLITE_OK

    @property
    def written(self) -> set[str]:
        """The tables with new rows, changed rows or fewer rows."""
        return self.inserted | self.changed


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def entries(db: sqlite3.Connection) -> list[Entry]:
    """The schema without what is SQLite's and Penstock's own, and what virtual tables keep for themselves."""
    cursor = db.cursor()
    cursor.row_factory = None
    found = [Entry(*row) for row in cursor.execute("SELECT type, name, tbl_name, sql FROM sqlite_master") if row[3]]
    shadows = {entry.name + suffix for entry in found if entry.is_virtual for suffix in _SHADOWS}
    own = ("sqlite_", "penstock_")
    return [entry for entry in found if not entry.name.startswith(own) and entry.table not in shadows]


def shadows_of(db: sqlite3.Connection, virtual: Entry) -> list[str]:
    """The tables in which a virtual table keeps its rows."""
    names = {str(row[0]) for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return sorted(names & {virtual.name + suffix for suffix in _SHADOWS})


def copy_table(source: sqlite3.Connection, target: sqlite3.Connection, entry: Entry) -> None:
    """Copy what a table has to one that was just made."""
    for table in shadows_of(source, entry) if entry.is_virtual else [entry.name]:
        target.execute(f"DELETE FROM {quoted(table)}")
        copy_rows(source, target, table)


def copy_rows(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> None:
    """Copy the rows of a table that both have, with their row ids."""
    names = [str(row[1]) for row in source.execute(f"PRAGMA table_info({quoted(table)})")]
    columns = [quoted(name) for name in names]
    if "rowid" not in (name.lower() for name in names) and _has_rowid(source, table):
        columns.insert(0, "rowid")
    listed = ", ".join(columns)
    cursor = source.cursor()
    cursor.row_factory = None
    rows = cursor.execute(f"SELECT {listed} FROM {quoted(table)}")
    marks = ", ".join("?" * len(columns))
    target.executemany(f"INSERT INTO {quoted(table)} ({listed}) VALUES ({marks})", rows)


def _has_rowid(db: sqlite3.Connection, table: str) -> bool:
    try:
        db.execute(f"SELECT rowid FROM {quoted(table)} LIMIT 0")
    except sqlite3.OperationalError:
        return False
    return True


class Scratch:
    """A database like the live one (`live`), without the projection's rows, after the projection's `setup`."""

    def __init__(self, live: sqlite3.Connection, projection: Projection, learned: Learned) -> None:
        self.live = live
        self.learned = learned
        self._resets = type(projection).reset is not Projection.reset
        self.db = _open_beside(live)
        try:
            self._begin()
            self.db.execute("COMMIT")
            ((enforced,),) = _plain(live, "PRAGMA foreign_keys")
            self.db.execute(f"PRAGMA foreign_keys={enforced}")
            self.db.execute("BEGIN EXCLUSIVE")
        except BaseException:
            self.db.close()
            raise
        self.db.set_authorizer(learned.authorize)

    def _begin(self) -> None:
        schema = entries(self.live)
        self._tables = [entry for entry in schema if entry.kind == "table" and entry.name not in self.learned.created]
        self._rest = [entry for entry in schema if entry.kind != "table" and entry.table not in self.learned.created]
        self._filled = self._with_rows()
        for entry in self._tables:
            if not entry.is_virtual:  # of which `setup` does not tell the authorizer when it cannot make them
                self._make(entry)

    def _make(self, entry: Entry) -> None:
        self.db.execute(entry.statement)
        if entry.name in self._filled:
            copy_table(self.live, self.db, entry)

    def set_up(self, projection: Projection) -> None:
        """Call the projection's `setup`, and its `reset` if it has one; then add the live indexes, triggers, views."""
        projection.setup(self.db)
        self.check()
        self.db.set_authorizer(None)
        there = {entry.name for entry in entries(self.db)}
        self._tables = [entry for entry in self._tables if not (entry.is_virtual and entry.name in there)]
        virtual = [entry for entry in self._tables if entry.is_virtual]
        for entry in virtual + sorted(self._rest, key=lambda entry: entry.kind):  # index, trigger, view
            if entry.name not in there:
                self._make(entry)
        self.db.set_authorizer(self.learned.authorize)
        if self._resets:
            projection.reset(self.db)
            self.check()

    def _with_rows(self) -> set[str]:
        """The tables that have to begin with their live rows."""
        read, written = self.learned.read, self.learned.written
        wanted = (read | written) if self._resets else (read - written)
        return {entry.name for entry in self._tables if entry.name in wanted}

    def check(self) -> None:
        """Raises `LearnedError` when what was learned since means that this database did not begin as it has to."""
        if self._with_rows() != self._filled or any(entry.name in self.learned.created for entry in self._tables):
            raise LearnedError

    def replaced(self) -> list[Entry]:
        """What takes the place of what is live: the projection's tables with all that is theirs, and its views.

        Raises `InvalidConfigError` when rows that the projection never makes are among them.
        """
        self.db.set_authorizer(None)
        self.db.execute("COMMIT")  # full text indexes are written then
        copied = {entry.name for entry in self._tables}
        live = set(entries(self.live))
        found = entries(self.db)
        tables = {
            entry.name
            for entry in found
            if entry.kind == "table" and (entry.name not in copied or entry.name in self.learned.written)
        }
        for name in sorted(tables & copied - self.learned.inserted):
            self._refuse_rows(name)
        return [entry for entry in found if entry.table in tables or (entry.kind == "view" and entry not in live)]

    def _refuse_rows(self, table: str) -> None:
        if not self._resets and self.live.execute(f"SELECT 1 FROM {quoted(table)} LIMIT 1").fetchone():
            raise InvalidConfigError(
                f"the projection changes rows of table {table!r}, and never makes any, so they cannot be made anew; "
                f"insert them in its setup(db), or give it a reset(db) that puts them back to how they were at first"
            )

    def close(self) -> None:
        """Forget it."""
        self.db.close()


def _open_beside(live: sqlite3.Connection) -> sqlite3.Connection:
    """An empty database in a transaction, in memory where the live one is, else in a file next to it."""
    (file,) = [path for _, name, path in _plain(live, "PRAGMA database_list") if name == "main"]
    beside = f"{file}.rebuild-{uuid.uuid4().hex}" if file else ":memory:"
    db = sqlite3.connect(beside, isolation_level=None, check_same_thread=False, factory=type(live))
    try:
        db.execute("PRAGMA journal_mode=OFF")  # it is thrown away when anything fails
        db.execute("PRAGMA synchronous=OFF")
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("PRAGMA foreign_keys=OFF")
        db.row_factory, db.text_factory = live.row_factory, live.text_factory
        db.execute("BEGIN EXCLUSIVE")
    except BaseException:
        db.close()
        raise
    finally:
        if file:
            Path(beside).unlink(missing_ok=True)
    return db


def _plain(db: sqlite3.Connection, statement: str) -> Iterator[Any]:
    cursor = db.cursor()
    cursor.row_factory = None
    return cursor.execute(statement)
