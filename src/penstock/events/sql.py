"""What the patterns ask of a user's database: any DB-API 2.0 connection, `sqlite3` first.

Statements are written with `?`; other parameter styles are translated. A transaction is begun and ended here whatever
the connection's own mode; inside one that the user opened, a savepoint takes its place.

Thread safety: `lock`, held while the database is used. Process safety: the database's. A forked child opens a file that
was opened here anew; a connection that the user made is the user's to replace. Errors: what SQLite says about the
machine (no room, a lock, a damaged file) in a statement of ours is raised as Penstock's error for it.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from penstock.errors import ClosedError, InvalidArgumentError, InvalidTypeError, TransactionStateError
from penstock.events.at_the_end import after
from penstock.storage.forks import closes_in_child, held, leave
from penstock.storage.sqlite import BUSY_TIMEOUT_S, typed, typed_error

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
    """A database of the user's: a path, where SQLite is opened, or a DB-API connection. Knows what differs."""

    def __init__(self, database: Any) -> None:
        self.path: Any = database if isinstance(database, (str, os.PathLike)) else None
        self._connection: Any = database if self.path is None else _connect(self.path)
        if not all(hasattr(self._connection, name) for name in ("cursor", "commit", "rollback")):
            raise InvalidTypeError(
                f"database is {type(database).__name__}; a path or a DB-API connection (such as sqlite3's) is needed"
            )
        self.is_sqlite = isinstance(self._connection, sqlite3.Connection)
        kind = type(self._connection).__module__
        module = sys.modules.get(kind.partition(".")[0])
        self._style = "qmark" if self.is_sqlite else str(getattr(module, "paramstyle", "qmark"))
        self._is_mysql = "mysql" in kind.lower()
        self._open = threading.local()
        self._closed = False
        self._left_open = False  # the parent's transaction was open when this child was forked
        self.lock = held(threading.RLock())
        if self.path is not None and self.file:  # a database in memory has no locks, and the child has all of it
            closes_in_child(self)

    @property
    def connection(self) -> Any:
        """The connection of this process. Raises `ClosedError`, `TransactionStateError`."""
        if self._connection is None:
            self.check_open()
            self._connection = self._connect_in_child()
        return self._connection

    def check_open(self) -> None:
        """Raises `ClosedError`."""
        if self._closed:
            raise ClosedError(f"what used {self._label} was closed")

    def _connect_in_child(self) -> sqlite3.Connection:
        if self._left_open:
            raise TransactionStateError(
                f"this process was forked inside a transaction of {self.path}, which is the parent's; fork outside"
            )
        return _connect(self.path)

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database, None for any other."""
        if not self.is_sqlite:
            return None
        found = [name for _, label, name in self.all("PRAGMA database_list") if label == "main"]
        return Path(found[0]) if found and found[0] else None

    @property
    def _label(self) -> Path:
        return Path(self.path or "the database")

    def leave_parent(self, idle: bool) -> None:
        """In the child of a fork: the next use opens a connection of its own."""
        if self._connection is not None and not self._closed:
            self._left_open = bool(self._connection.in_transaction)
        leave(self._connection, idle and not self._left_open)
        self._connection = None
        self._open = threading.local()
        self.lock = held(threading.RLock())

    def close(self) -> None:
        """Close the connection if it was opened here, and let go of it otherwise. May be repeated."""
        with self.lock:
            self._closed = True
            connection, self._connection = self._connection, None
            if connection is not None and self.path is not None:
                connection.close()

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
            try:
                return int(self.connection.execute(statement, values).rowcount)
            except sqlite3.Error as error:
                self.refuse(error)
                raise
        cursor = self.connection.cursor()
        try:
            cursor.execute(self.prepared(statement), self._parameters(values))
            return int(cursor.rowcount)
        finally:
            cursor.close()

    def run_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Execute once for each row of values."""
        with self._cursor() as cursor:
            cursor.executemany(self.prepared(statement), [self._parameters(row) for row in rows])

    def all(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows."""
        with self._cursor() as cursor:
            cursor.execute(self.prepared(statement), self._parameters(values))
            return [tuple(row) for row in cursor.fetchall()]

    def one(self, statement: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row, or None."""
        found = self.all(statement, *values)
        return found[0] if found else None

    def has(self, statement: str, *values: Any) -> bool:
        """Whether there is a row."""
        if self.is_sqlite:
            try:
                return self.connection.execute(statement, values).fetchone() is not None
            except sqlite3.Error as error:
                self.refuse(error)
                raise
        return bool(self.all(statement, *values))

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        cursor = None
        try:
            cursor = self.connection.cursor()
            yield cursor
        except sqlite3.Error as error:
            self.refuse(error)
            raise
        finally:
            if cursor is not None:
                cursor.close()

    def refuse(self, error: sqlite3.Error) -> None:
        """Raise Penstock's error for what SQLite says about the machine; nothing for a mistake in a statement."""
        found = typed_error(error, self._label)
        if found is not None:
            raise found from error

    def typed(self) -> AbstractContextManager[None]:
        """As `refuse` does, for statements of others in a block."""
        return typed(self._label)

    def make_tables(self, *statements: str) -> None:
        """Make tables that do not exist, in one transaction (or as a part of the one that is open)."""
        with self.lock, self.transaction(nested=True):
            for statement in statements:
                self.run(statement)

    @property
    def serial_key(self) -> str:
        """The type of a key that the database counts up."""
        return "BIGINT AUTO_INCREMENT PRIMARY KEY" if self._is_mysql else "BIGSERIAL PRIMARY KEY"

    # --- transactions ----------------------------------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open on the connection, as far as that can be known."""
        if self.is_sqlite:
            try:
                return bool(self.connection.in_transaction)
            except sqlite3.Error as error:  # its user has closed it
                self.refuse(error)
                raise
        status = getattr(getattr(self.connection, "info", None), "transaction_status", None)  # psycopg
        return bool(status) if status is not None else getattr(self._open, "depth", 0) > 0

    @contextmanager
    def transaction(self, *, nested: bool) -> Iterator[None]:
        """Commits at the end; an exception rolls back. In an open transaction: with `nested` a savepoint of it, else
        `TransactionStateError`.
        """
        if nested and self.in_transaction:
            with self._savepoint():
                yield
            return
        self.begin()
        try:
            yield
            self.commit()
        except BaseException as error:
            after(error, "rollback", self.rollback)
            raise

    def begin(self) -> None:
        """Begin a transaction; `commit` or `rollback` ends it. Raises `TransactionStateError` when one is open."""
        implicit = self._is_implicit
        if self.in_transaction and not implicit:
            raise TransactionStateError("the connection has an open transaction; commit or roll it back first")
        fault("begin")
        if self.is_sqlite and not implicit:
            self.run("BEGIN IMMEDIATE")
        self._open.depth = 1

    def commit(self) -> None:
        """Commit what was begun; after an exception, `rollback` is to be called."""
        fault("commit")
        self._end("COMMIT")
        self._open.depth = 0

    def rollback(self) -> None:
        """Roll back what was begun."""
        self._open.depth = 0
        self._end("ROLLBACK")

    @property
    def _is_implicit(self) -> bool:
        """Whether a SQLite connection begins transactions by itself (`autocommit=False`)."""
        return self.is_sqlite and getattr(self.connection, "autocommit", None) is False

    def _end(self, how: str) -> None:
        if not self.is_sqlite or self._is_implicit:
            getattr(self.connection, how.lower())()
        elif self.connection.in_transaction:  # some errors roll back by themselves
            self.run(how)

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        self.run(SAVE)
        try:
            yield
        except BaseException as error:
            after(error, "rollback", self.undo_savepoint)
            raise
        self.run(RELEASE)

    def undo_savepoint(self) -> None:
        """Go back to the last savepoint, and drop it; some errors have rolled everything back by themselves."""
        if self.in_transaction:
            self.run(UNDO)
            self.run(RELEASE)


def _connect(path: str | os.PathLike[str]) -> sqlite3.Connection:
    """SQLite at a path: write-ahead log, used by any thread under the caller's lock."""
    with typed(Path(path)):
        try:
            connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        except (sqlite3.OperationalError, ValueError) as error:
            raise InvalidArgumentError(f"database is {path!r}, which cannot be opened: {error}") from error
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA cache_size={-_CACHE_KIB}")
            connection.execute(f"PRAGMA mmap_size={_MMAP_BYTES}")
        except BaseException:
            connection.close()
            raise
    return connection
