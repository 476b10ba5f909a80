"""Queues, exchanges, bindings, schedules, and what is remembered for deduplication, in SQLite.

Process safety: SQLite's own (WAL, immediate transactions); whoever changes a definition rings the catalog's bell.
Thread safety: one connection behind a lock. Crash policy: SQLite's.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.queues.queue_config import QueueConfig
from penstock.storage.forks import closes_in_child, held, leave
from penstock.storage.sqlite import connect, transaction, typed

STORE_FILE = "queues.sqlite3"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS queues (name TEXT PRIMARY KEY, config TEXT NOT NULL, used_ms INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS transient (queue TEXT PRIMARY KEY, incarnation INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS begun (queue TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS exchanges (name TEXT PRIMARY KEY, type TEXT NOT NULL, alternate TEXT) STRICT;
CREATE TABLE IF NOT EXISTS bindings (
    exchange TEXT NOT NULL, kind TEXT NOT NULL, target TEXT NOT NULL, routing_key TEXT NOT NULL, arguments TEXT NOT
    NULL, PRIMARY KEY (exchange, kind, target, routing_key, arguments)
) STRICT;
CREATE TABLE IF NOT EXISTS schedules (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, target TEXT NOT NULL, routing_key TEXT NOT NULL, cron TEXT NOT NULL,
    body BLOB NOT NULL, headers TEXT NOT NULL, due_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS remembered (
    queue TEXT NOT NULL, scope TEXT NOT NULL, id TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    sent_ms INTEGER NOT NULL, PRIMARY KEY (queue, scope, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS remembered_by_time ON remembered (queue, sent_ms);
CREATE TABLE IF NOT EXISTS taken_in (
    queue TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY (queue, partition)
) STRICT;
CREATE TABLE IF NOT EXISTS attempts (
    queue TEXT NOT NULL, id TEXT NOT NULL, receipts TEXT NOT NULL, made_ms INTEGER NOT NULL, PRIMARY KEY (queue, id)
) STRICT;
"""


class QueueStore:
    """The definitions of a directory's queues and exchanges."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / STORE_FILE
        self._lock = held(threading.RLock())
        self._connection = self._connect()
        closes_in_child(self)

    def _connect(self) -> sqlite3.Connection:
        return connect(self._path, _SCHEMA, durable=False)

    def leave_parent(self, idle: bool) -> None:
        """In the child of a fork."""
        leave(self._connection, idle)
        self._lock = held(threading.RLock())

    def after_fork(self) -> None:
        """Open a connection of this process."""
        self._connection = self._connect()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Alone among all processes; commits on leaving, rolls back when an exception leaves."""
        with self._lock, typed(self._path), transaction(self._connection) as connection:
            yield connection

    def read(self, statement: str, *values: Any) -> list[Any]:
        """Rows of a query."""
        with self._lock, typed(self._path):
            return self._connection.execute(statement, values).fetchall()

    def write(self, statement: str, *values: Any) -> int:
        """Run one statement; how many rows it changed."""
        with self.transaction() as connection:
            return connection.execute(statement, values).rowcount

    # --- queues ----------------------------------------------------------------------------------------------------

    def queues(self) -> dict[str, QueueConfig]:
        """Every queue by name, in alphabetical order."""
        rows = self.read("SELECT name, config FROM queues ORDER BY name")
        return {name: QueueConfig.from_dict(json.loads(config)) for name, config in rows}

    def queue(self, name: str) -> QueueConfig | None:
        """One queue's configuration."""
        rows = self.read("SELECT config FROM queues WHERE name = ?", name)
        return QueueConfig.from_dict(json.loads(rows[0][0])) if rows else None

    def begin(self, name: str) -> None:
        """A queue is about to be made, or deleted: should that be left half done, a topic of its name is nobody's."""
        self.write("INSERT OR IGNORE INTO begun VALUES (?)", name)

    def begun(self, name: str) -> bool:
        """Whether that was left half done."""
        return bool(self.read("SELECT 1 FROM begun WHERE queue = ?", name))

    def end(self, name: str) -> None:
        """It is done."""
        self.write("DELETE FROM begun WHERE queue = ?", name)

    def save_queue(self, name: str, config: QueueConfig, now_ms: int, incarnation: int) -> None:
        """Add or replace a queue's configuration; the `incarnation` is when it was made, should it not be durable."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT INTO queues VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET config = excluded.config",
                (name, json.dumps(config.to_dict()), now_ms),
            )
            connection.execute("DELETE FROM begun WHERE queue = ?", (name,))
            connection.execute("DELETE FROM transient WHERE queue = ?", (name,))
            if not config.durable:
                connection.execute("INSERT INTO transient VALUES (?, ?)", (name, incarnation))

    def delete_queue(self, name: str) -> None:
        """Forget a queue, its bindings, and what was remembered for it."""
        with self.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO begun VALUES (?)", (name,))
            connection.execute("DELETE FROM queues WHERE name = ?", (name,))
            connection.execute("DELETE FROM bindings WHERE kind = 'queue' AND target = ?", (name,))
            connection.execute("DELETE FROM schedules WHERE kind = 'queue' AND target = ?", (name,))
            for table in ("remembered", "taken_in", "attempts", "transient"):
                connection.execute(f"DELETE FROM {table} WHERE queue = ?", (name,))
