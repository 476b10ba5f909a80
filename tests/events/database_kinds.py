"""Databases that the patterns must work with: `sqlite3` in each of its modes, and a DB-API driver of another style."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

paramstyle = "pyformat"  # of `FormatConnection`


class FormatCursor:
    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        assert "?" not in statement
        self._cursor.execute(statement.replace("%s", "?"), values)

    def executemany(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        self._cursor.executemany(statement.replace("%s", "?"), rows)

    def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()

    def fetchone(self) -> Any:
        return self._cursor.fetchone()

    def close(self) -> None:
        self._cursor.close()


class FormatConnection:
    """Begins transactions by itself and wants `%s`, as drivers of database servers do."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level="IMMEDIATE", check_same_thread=False)

    def cursor(self) -> FormatCursor:
        return FormatCursor(self._connection.cursor())

    def commit(self) -> None:
        self._connection.commit()

    def rollback(self) -> None:
        self._connection.rollback()

    def close(self) -> None:
        self._connection.close()


FormatConnection.__module__ = __name__.rpartition(".")[2]  # where its `paramstyle` is looked for
sys.modules.setdefault(FormatConnection.__module__, sys.modules[__name__])

Opener = Callable[[Path], Any]
OPENERS: dict[str, Opener] = {
    "legacy": lambda path: sqlite3.connect(path, check_same_thread=False),
    "autocommit": lambda path: sqlite3.connect(path, isolation_level=None, check_same_thread=False),
    "format": FormatConnection,
}
