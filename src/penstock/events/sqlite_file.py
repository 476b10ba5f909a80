"""A small SQLite file beside the log: opened when it is needed, by every process for itself.

Process safety: SQLite's (WAL). Thread safety: `lock`, held while `connection()` is used. A forked child opens its own
connection and leaves the parent's alone. Crash policy: SQLite's, synced at each change.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from penstock.errors import CorruptionError, DiskFullError, LockedError
from penstock.storage.forks import closes_in_child, held, leave

_BUSY_S = 30.0


class SqliteFile:
    """The file at `path` with the tables of `schema`, readable by its owner only."""

    def __init__(self, path: Path, schema: str, synchronous: str = "FULL") -> None:
        self.path = path
        self.lock = held(threading.RLock())
        self._schema = schema
        self._synchronous = synchronous
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
        with self._translated("open"):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA secure_delete=ON")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={self._synchronous}")
            connection.executescript(self._schema)
        return connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for single statements."""
        with self.lock, self._translated("read"):
            yield self.connection()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The connection in an immediate transaction: committed at the end, rolled back by an exception."""
        with self.lock, self._translated("write"):
            connection = self.connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            code: int = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_FULL:
                raise DiskFullError(errno.ENOSPC, f"no room to {what} {self.path}: {error}") from error
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise LockedError(f"{self.path} was locked for {_BUSY_S:g} s: {error}") from error
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise CorruptionError(f"cannot {what}: {error}", str(self.path), 0) from error
            raise

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
