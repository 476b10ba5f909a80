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
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from penstock._native.words import CommitTable, WordTable
from penstock.storage.directory import SharedLock

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
"""
_abandoned: list[sqlite3.Connection] = []  # a parent's connections, never to be closed in a forked child
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
        self._directory = directory
        self._durable = durable
        self._lock = threading.RLock()
        self.exclusive = _Exclusive(directory / _LOCK_FILE, self._finish_pending)
        self._depth = 0
        self.finish_pending: Callable[[], None] | None = None
        self.commits = CommitTable(str(directory / COMMITS_FILE))
        self.slots = WordTable(str(directory / SLOTS_FILE))
        self._connection = self._connect()

    def _connect(self) -> sqlite3.Connection:
        with self.exclusive:
            connection = sqlite3.connect(
                self._directory / GROUPS_FILE, timeout=30.0, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'NORMAL'}")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.executescript(_SCHEMA)
        return connection

    def after_fork(self) -> None:
        """Leave the parent's connection alone and open one of this process."""
        _abandoned.append(self._connection)
        self._lock = threading.RLock()
        self._depth = 0
        self.exclusive.after_fork()
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
            else:
                self._connection.execute("BEGIN IMMEDIATE")
                self._depth = 1
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                else:
                    self._connection.execute("COMMIT")
                finally:
                    self._depth = 0

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query, as of now."""
        with self._lock:
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
            for cell, owner in connection.execute(
                "SELECT cell, owner FROM partitions WHERE topic = ?", (topic,)
            ).fetchall():
                self.commits.reset(cell, -1)
                self.bump_member(owner)
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
