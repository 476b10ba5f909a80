"""Consumer groups of a directory: members, who owns which partition, committed offsets.

`groups.sqlite3` holds what changes when members come and go; `group-commits` is mapped, a word for each partition of
each group, so that a commit is a store; `group-slots` is mapped, two words for each member and process: an epoch that
changes whenever its owner has to look again, and a heartbeat.

Invariants: a partition of a group has one owner or none, and only the holder of its cell's claim commits; whoever takes
a partition away changes the claim first. Thread and process safety: `change()` holds one lock between threads and
processes. Crash policy: SQLite's; a process that dies inside `change()` leaves the state before it.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from penstock._native.words import CommitTable, WordTable
from penstock.storage.directory import SharedLock
from penstock.storage.forks import closes_in_child, held, leave
from penstock.storage.sqlite import connect, typed, typed_error

GROUPS_FILE = "groups.sqlite3"
COMMITS_FILE = "group-commits"
SLOTS_FILE = "group-slots"
_LOCK_FILE = "groups.lock"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS groups (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    generation INTEGER NOT NULL DEFAULT 0,
    stale INTEGER NOT NULL DEFAULT 0,
    strategy TEXT NOT NULL DEFAULT '',
    emptied_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS processes (
    token TEXT PRIMARY KEY,
    pid INTEGER NOT NULL,
    slot INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS members (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    group_id INTEGER NOT NULL REFERENCES groups ON DELETE CASCADE,
    process TEXT,
    slot INTEGER NOT NULL,
    client_id TEXT NOT NULL,
    instance_id TEXT,
    topics TEXT NOT NULL,
    session_timeout_ms INTEGER NOT NULL,
    left_ms INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS members_of ON members (group_id);
CREATE TABLE IF NOT EXISTS partitions (
    group_id INTEGER NOT NULL REFERENCES groups ON DELETE CASCADE,
    topic TEXT NOT NULL,
    number INTEGER NOT NULL,
    cell INTEGER NOT NULL UNIQUE,
    target TEXT,
    owner TEXT,
    metadata TEXT,
    metadata_offset INTEGER,
    PRIMARY KEY (group_id, topic, number)
) STRICT;
CREATE INDEX IF NOT EXISTS targets ON partitions (target);
CREATE INDEX IF NOT EXISTS owners ON partitions (owner);
CREATE TABLE IF NOT EXISTS slots (slot INTEGER PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS shapes (
    group_id INTEGER PRIMARY KEY REFERENCES groups ON DELETE CASCADE,
    counts TEXT NOT NULL DEFAULT '{}',
    committed_only INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS attached (
    id TEXT PRIMARY KEY,
    group_id INTEGER NOT NULL REFERENCES groups ON DELETE CASCADE,
    process TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS transactional (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    process TEXT NOT NULL
) STRICT;
"""
EPOCH, HEARTBEAT = 0, 1
COORDINATOR_SLOT = 0  # its heartbeat says when the elected process looked last
PENDING_WORD = 0  # not 0: a transaction is decided and its group offsets may not be applied


class _Exclusive(SharedLock):
    """Alone among all threads and processes; what a dead one left pending is finished first."""

    def __init__(self, path: Path, prepare: Callable[[], None]) -> None:
        super().__init__(path)
        self._prepare = prepare

    def __enter__(self) -> _Exclusive:
        super().__enter__()
        if not self.nested:
            try:
                self._prepare()
            except BaseException:
                self.__exit__()
                raise
        return self


class GroupStore:
    """What every process of a directory knows about groups. `durable`: rows outlive a power cut at once."""

    def __init__(self, directory: Path, durable: bool) -> None:
        self._path = directory / GROUPS_FILE
        self._durable = durable
        self._lock = held(threading.RLock())
        self.exclusive = _Exclusive(directory / _LOCK_FILE, self._finish_pending)
        self._depth = 0
        self.finish_pending: Callable[[], None] | None = None
        self.commits = CommitTable(str(directory / COMMITS_FILE))
        self.slots = WordTable(str(directory / SLOTS_FILE))
        with self.exclusive:
            self._connection = self._connect()
        closes_in_child(self)

    def _connect(self) -> sqlite3.Connection:
        return connect(self._path, _SCHEMA, durable=self._durable)

    def leave_parent(self, idle: bool) -> None:
        """In the child of a fork."""
        leave(self._connection, idle)
        self._lock = held(threading.RLock())
        self._depth = 0
        self.exclusive.after_fork()

    def after_fork(self) -> None:
        """Open a connection of this process. What a dead process left pending waits for the first `change`."""
        self._connection = self._connect()

    def _finish_pending(self) -> None:
        if self.slots.get(PENDING_WORD) and self.finish_pending is not None:
            self.finish_pending()

    @contextlib.contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """A transaction, alone among all threads and processes. May be nested: the outermost commits."""
        with self.exclusive, self._lock:
            if self._depth:
                yield self._connection
                return
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._depth = 1
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                found = typed_error(error, self._path)
                if found is None:
                    raise
                raise found from error
            finally:
                self._depth = 0
                if self._in_transaction():
                    with typed(self._path):
                        self._connection.execute("ROLLBACK")

    def _in_transaction(self) -> bool:
        try:
            return self._connection.in_transaction
        except sqlite3.ProgrammingError:  # closed
            return False

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query, as of now."""
        with self._lock, typed(self._path):
            return self._connection.execute(statement, values).fetchall()

    # --- words -------------------------------------------------------------------------------------------------------

    def take_slot(self) -> int:
        """A slot that nobody has. Inside `change`."""
        row = self._connection.execute("SELECT min(slot) FROM slots").fetchone()
        if row[0] is not None:
            self._connection.execute("DELETE FROM slots WHERE slot = ?", row)
            slot = int(row[0])
        else:
            taken = f"SELECT slot FROM members UNION ALL SELECT slot FROM processes UNION ALL SELECT {COORDINATOR_SLOT}"
            slot = int(self._connection.execute(f"SELECT max(slot) FROM ({taken})").fetchone()[0]) + 1
        self.slots.reserve(2 * slot + 2)
        return slot

    def give_slot(self, slot: int) -> None:
        """The slot is free; who still looks at it sees that it changed. Inside `change`."""
        self.bump(slot)
        self._connection.execute("INSERT OR IGNORE INTO slots VALUES (?)", (slot,))

    def bump(self, slot: int) -> None:
        """Make the slot's owner look again."""
        self.slots.add(2 * slot + EPOCH, 1)

    def epoch(self, slot: int) -> int:
        """Changes whenever the slot's owner has to look."""
        return self.slots.get(2 * slot + EPOCH)

    def beat(self, slot: int, now_ms: int) -> None:
        """The slot's owner is alive now."""
        self.slots.set(2 * slot + HEARTBEAT, now_ms)

    def last_beat_ms(self, slot: int) -> int:
        """When the slot's owner was last known to be alive."""
        return self.slots.get(2 * slot + HEARTBEAT)

    # --- groups and partitions ---------------------------------------------------------------------------------------

    def group_id(self, name: str, now_ms: int) -> int:
        """The group's row, made when there is none. Inside `change`."""
        row = self._connection.execute("SELECT id FROM groups WHERE name = ?", (name,)).fetchone()
        if row is None:
            cursor = self._connection.execute("INSERT INTO groups (name, emptied_ms) VALUES (?, ?)", (name, now_ms))
            return int(cursor.lastrowid or 0)
        return int(row[0])

    def find_group(self, name: str) -> int | None:
        """The group's row, or None."""
        rows = self.rows("SELECT id FROM groups WHERE name = ?", name)
        return int(rows[0][0]) if rows else None

    def counts(self, group_id: int) -> dict[str, int]:
        """The topics of the last assignment, with how many partitions they had."""
        rows = self.rows("SELECT counts FROM shapes WHERE group_id = ?", group_id)
        return json.loads(rows[0][0]) if rows else {}

    def set_counts(self, group_id: int, counts: dict[str, int]) -> None:
        """This is what was assigned. Inside `change`."""
        self._connection.execute(
            "INSERT INTO shapes (group_id, counts) VALUES (?, ?) ON CONFLICT DO UPDATE SET counts = excluded.counts",
            (group_id, json.dumps(counts)),
        )

    def reads_committed(self, group_id: int) -> bool:
        """Whether the newest reader of the group has `isolation_level="read_committed"`."""
        rows = self.rows("SELECT committed_only FROM shapes WHERE group_id = ?", group_id)
        return bool(rows and rows[0][0])

    def set_reads_committed(self, group_id: int, committed_only: bool) -> None:
        """How the newest reader of the group reads. Inside `change`."""
        self._connection.execute(
            "INSERT INTO shapes (group_id, committed_only) VALUES (?, ?)"
            " ON CONFLICT DO UPDATE SET committed_only = excluded.committed_only",
            (group_id, int(committed_only)),
        )

    def cell(self, group_id: int, topic: str, number: int) -> int:
        """The commit word of a partition, made when there is none. Inside `change`."""
        query = "SELECT cell FROM partitions WHERE group_id = ? AND topic = ? AND number = ?"
        row = self._connection.execute(query, (group_id, topic, number)).fetchone()
        return int(row[0]) if row else self.add_cells(group_id, [(topic, number)])[0]

    def add_cells(self, group_id: int, partitions: list[tuple[str, int]]) -> list[int]:
        """New commit words, without an offset. Inside `change`."""
        taken = {row[0] for row in self._connection.execute("SELECT cell FROM partitions")}
        cells, candidate = [], 0
        for _ in partitions:
            while candidate in taken:
                candidate += 1
            cells.append(candidate)
            candidate += 1
        for cell in cells:
            self.commits.reset(cell, -1)
        self._connection.executemany(
            "INSERT INTO partitions (group_id, topic, number, cell) VALUES (?, ?, ?, ?)",
            [(group_id, topic, number, cell) for (topic, number), cell in zip(partitions, cells, strict=True)],
        )
        return cells

    def forget_topic(self, topic: str) -> None:
        """The topic was deleted: so are its offsets, and its members look again."""
        with self.change() as connection:
            for (cell,) in connection.execute("SELECT cell FROM partitions WHERE topic = ?", (topic,)).fetchall():
                self.commits.reset(cell, -1)
            connection.execute(
                "UPDATE groups SET stale = 1 WHERE id IN (SELECT group_id FROM partitions WHERE topic = ?)"
                " AND id IN (SELECT group_id FROM members)", (topic,)
            )  # fmt: skip
            for (slot,) in connection.execute(
                "SELECT slot FROM members WHERE group_id IN (SELECT group_id FROM partitions WHERE topic = ?)", (topic,)
            ).fetchall():
                self.bump(slot)
            connection.execute("DELETE FROM partitions WHERE topic = ?", (topic,))

    def bump_member(self, member_id: str | None) -> None:
        """Make a member look again."""
        for (slot,) in self.rows("SELECT slot FROM members WHERE id = ?", member_id) if member_id else ():
            self.bump(slot)

    def sync(self) -> None:
        """Commits made so far are on the disk when this returns."""
        if self.commits.written:
            self.commits.sync()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()
        self.exclusive.close()
