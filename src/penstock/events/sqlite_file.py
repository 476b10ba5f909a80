"""A small SQLite file beside the log: opened when it is needed, by every process for itself.

Process safety: SQLite's (WAL). Thread safety: `lock`, held while `connection()` is used. A forked child opens its own
connection and leaves the parent's alone. Crash policy: SQLite's, synced at each change if `durable`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from penstock.storage.forks import closes_in_child, held, leave
from penstock.storage.sqlite import connect, transaction, typed


class SqliteFile:
    """The file at `path` with the tables of `schema`, readable by its owner only."""

    def __init__(self, path: Path, schema: str, durable: bool = True) -> None:
        self.path = path
        self.lock = held(threading.RLock())
        self._schema = schema
        self._durable = durable
        self._connection: sqlite3.Connection | None = None
        closes_in_child(self)

    @property
    def exists(self) -> bool:
        """Whether anything was ever written."""
        return self._connection is not None or self.path.exists()

    def connection(self) -> sqlite3.Connection:
        """The connection of this process; to be used under `lock`."""
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        with typed(self.path):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = connect(self.path, self._schema, durable=self._durable)
            connection.execute("PRAGMA secure_delete=ON")
        return connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for single statements."""
        with self.lock, typed(self.path):
            yield self.connection()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The connection in an immediate transaction: committed at the end, rolled back by an exception."""
        with self.lock, typed(self.path):
            with transaction(self.connection()) as connection:
                yield connection

    def leave_parent(self, idle: bool) -> None:
        """In the child of a fork: the next use opens a connection of its own."""
        leave(self._connection, idle)
        self._connection = None
        self.lock = held(threading.RLock())

    def close(self) -> None:
        """Close the connection; it opens again at the next use."""
        with self.lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
