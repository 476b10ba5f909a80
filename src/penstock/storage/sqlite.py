"""SQLite files of a data directory: opened in one way, and what SQLite reports as an error of Penstock's.

Invariant: no `sqlite3.Error` that comes from the machine (no room, no permission, a lock, a damaged file) reaches a
caller. Thread and process safety, crash policy: SQLite's, with a write-ahead log.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from penstock.errors import ClosedError, CorruptionError, DataDirectoryError, DiskFullError, LockedError, PenstockError

BUSY_TIMEOUT_S = 30.0
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
_REFUSED = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def connect(path: Path, schema: str, *, durable: bool, timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """Open (or create) a database with these tables. `durable`: what is committed outlives a power cut at once.

    Raises `DiskFullError`, `DataDirectoryError`, `LockedError`, `CorruptionError`.
    """
    with typed(path):
        connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.executescript(schema)
        except sqlite3.Error as error:
            connection.close()
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:
                raise CorruptionError(f"the tables are not Penstock's: {error}", str(path), 0) from error
            raise
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Alone among all processes; commits at the end. An exception rolls back, one of the commit itself as well."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors roll back by themselves
            connection.execute("ROLLBACK")
        raise


class typed:
    """What SQLite raises inside comes out as one of Penstock's errors."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Nothing to begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, sqlite3.Error):
            found = typed_error(error, self._path)
            if found is not None:
                raise found from error


def typed_error(error: sqlite3.Error, path: Path) -> PenstockError | None:
    """The error of Penstock's for one of SQLite's; None when it is a mistake in a statement, not the machine's."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    kind = code & 0xFF
    if code in _FULL:
        return DiskFullError(errno.ENOSPC, f"no room to write {path}: {error}")
    if kind in _LOCKED:
        return LockedError(errno.EAGAIN, f"{path} is locked by another program: {error}")
    if kind in _REFUSED:
        return DataDirectoryError(errno.EACCES, f"{path} cannot be used: {error}")
    if kind == sqlite3.SQLITE_IOERR:
        return DataDirectoryError(errno.EIO, f"{path} cannot be read or written: {error}")
    if kind in _DAMAGED:
        return CorruptionError(f"the database is damaged: {error}", str(path), 0)
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
        return ClosedError(f"{path} was closed")
    return None
