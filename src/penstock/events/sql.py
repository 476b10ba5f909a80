"""What the patterns ask of a user's database: any DB-API 2.0 connection, `sqlite3` first.

Statements are written with `?`; other parameter styles are translated. A transaction is begun and ended here whatever
the connection's own mode; inside one that the user opened, a savepoint takes its place.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.errors import InvalidArgumentError, InvalidTypeError, TransactionStateError

BUSY_TIMEOUT_S = 30.0
_CACHE_KIB = 64 << 10
_MMAP_BYTES = 1 << 40  # as much of the file as there is
SAVE, UNDO, RELEASE = (
    f"{verb} penstock_savepoint" for verb in ("SAVEPOINT", "ROLLBACK TO SAVEPOINT", "RELEASE SAVEPOINT")
)  # always the same, so that the prepared statements are; they nest by themselves


def _no_step(name: str) -> None:
    """Nothing: tests put something here that fails, or kills, at a step."""


fault: Callable[[str], None] = _no_step
"""Called with a step's name before the step: "begin", "commit", and what a caller names."""


class Sql:
    """A DB-API connection with the few things that differ between databases."""

    def __init__(self, connection: Any) -> None:
        if not all(hasattr(connection, name) for name in ("cursor", "commit", "rollback")):
            raise InvalidTypeError(
                f"database is {type(connection).__name__}; a path or a DB-API connection (such as sqlite3's) is needed"
            )
        self.connection = connection
        self.is_sqlite = isinstance(connection, sqlite3.Connection)
        module = sys.modules.get(type(connection).__module__.partition(".")[0])
        self._style = "qmark" if self.is_sqlite else str(getattr(module, "paramstyle", "qmark"))
        self._is_mysql = "mysql" in type(connection).__module__.lower()
        self._open = threading.local()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Sql:
        """SQLite at a path: write-ahead log, used by any thread under the caller's lock."""
        try:
            connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        except (sqlite3.OperationalError, ValueError) as error:
            raise InvalidArgumentError(f"database is {path!r}, which cannot be opened: {error}") from error
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA cache_size={-_CACHE_KIB}")
        connection.execute(f"PRAGMA mmap_size={_MMAP_BYTES}")
        return cls(connection)

    # --- statements ------------------------------------------------------------------------------------------------

    def prepared(self, statement: str) -> str:
        """The statement in the connection's parameter style."""
        if self._style == "qmark":
            return statement
        if self._style in ("format", "pyformat"):
            return statement.replace("?", "%s")
        first, *rest = statement.split("?")
        prefix = ":" if self._style == "numeric" else ":p"
        return first + "".join(f"{prefix}{number}{part}" for number, part in enumerate(rest, 1))

    def _parameters(self, values: Sequence[Any]) -> Any:
        if self._style == "named":
            return {f"p{number}": value for number, value in enumerate(values, 1)}
        return tuple(values)

    def run(self, statement: str, *values: Any) -> int:
        """Execute; how many rows it changed."""
        if self.is_sqlite:
            return int(self.connection.execute(statement, values).rowcount)
        cursor = self.connection.cursor()
        try:
            cursor.execute(self.prepared(statement), self._parameters(values))
            return int(cursor.rowcount)
        finally:
            cursor.close()

    def run_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Execute once for each row of values."""
        cursor = self.connection.cursor()
        try:
            cursor.executemany(self.prepared(statement), [self._parameters(row) for row in rows])
        finally:
            cursor.close()

    def all(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows."""
        cursor = self.connection.cursor()
        try:
            cursor.execute(self.prepared(statement), self._parameters(values))
            return [tuple(row) for row in cursor.fetchall()]
        finally:
            cursor.close()

    def one(self, statement: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row, or None."""
        if self.is_sqlite and self.connection.row_factory is None:
            row: tuple[Any, ...] | None = self.connection.execute(statement, values).fetchone()
            return row
        found = self.all(statement, *values)
        return found[0] if found else None

    def make_index(self, name: str, table: str, columns: str) -> None:
        """Make an index, if it does not exist."""
        if not self._is_mysql:  # which does not know IF NOT EXISTS here; the statements work without
            self.run(f"CREATE INDEX IF NOT EXISTS {name} ON {table} ({columns})")

    @property
    def serial_key(self) -> str:
        """The type of a key that the database counts up."""
        return "BIGINT AUTO_INCREMENT PRIMARY KEY" if self._is_mysql else "BIGSERIAL PRIMARY KEY"

    # --- transactions ----------------------------------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open on the connection, as far as that can be known."""
        if self.is_sqlite:
            return bool(self.connection.in_transaction)
        status = getattr(getattr(self.connection, "info", None), "transaction_status", None)  # psycopg
        return bool(status) if status is not None else getattr(self._open, "depth", 0) > 0

    @contextmanager
    def transaction(self, *, nested: bool) -> Iterator[None]:
        """Commits at the end; an exception rolls back. In an open transaction: with `nested` a savepoint of it, else
        `TransactionStateError`.
        """
        implicit = self.is_sqlite and getattr(self.connection, "autocommit", None) is False
        if self.in_transaction and nested:
            with self._savepoint():
                yield
            return
        if self.in_transaction and not implicit:
            raise TransactionStateError("the connection has an open transaction; commit or roll it back first")
        fault("begin")
        if self.is_sqlite and not implicit:
            self.connection.execute("BEGIN IMMEDIATE")
        self._open.depth = 1
        try:
            yield
            fault("commit")
            self._end("commit", implicit)
        except BaseException:
            self._end("rollback", implicit)
            raise
        finally:
            self._open.depth = 0

    def _end(self, how: str, implicit: bool) -> None:
        if not self.is_sqlite or implicit:
            getattr(self.connection, how)()
        elif self.connection.in_transaction:  # some errors roll back by themselves
            self.connection.execute(how)

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        self.run(SAVE)
        try:
            yield
        except BaseException:
            self.undo_savepoint()
            raise
        self.run(RELEASE)

    def undo_savepoint(self) -> None:
        """Go back to the last savepoint, and drop it; some errors have rolled everything back by themselves."""
        if self.in_transaction:
            self.run(UNDO)
            self.run(RELEASE)


def id_key(identity: str) -> bytes | str:
    """What SQLite keeps of a message id: 16 bytes of a UUID, the text of any other id."""
    if len(identity) == 36 and identity[8] == identity[13] == identity[18] == identity[23] == "-":
        try:
            return bytes.fromhex(identity[:8] + identity[9:13] + identity[14:18] + identity[19:23] + identity[24:])
        except ValueError:
            return identity
    return identity


def is_path(given: object) -> bool:
    """Whether this names a database file."""
    return isinstance(given, (str, Path, os.PathLike))
