"""Metadata of a data directory in SQLite: topics and their configuration.

Process safety: SQLite's own (WAL, immediate transactions); a change rings the catalog's bell so that every process
reloads. Thread safety: one connection behind a lock. Crash policy: SQLite's; directories of a topic are made before its
row and removed after it, so a row always has its directories.
"""

from __future__ import annotations

import errno
import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

from penstock.errors import CorruptionError, DiskFullError, TopicExistsError, UnknownTopicError
from penstock.storage.topic_config import TopicConfig

CATALOG_FILE = "catalog.sqlite3"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (
    name TEXT PRIMARY KEY,
    config TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT
"""
_abandoned: list[sqlite3.Connection] = []  # a parent's connections, never to be closed in a forked child


class Catalog:
    """The topics of a directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / CATALOG_FILE
        self._lock = threading.Lock()
        self._connection = self._connect()

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self._path, timeout=30.0, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(_SCHEMA)
        except sqlite3.DatabaseError as error:
            if _is_full(error):
                raise DiskFullError(errno.ENOSPC, f"no room to open {self._path}: {error}") from error
            raise CorruptionError(f"the catalog cannot be opened: {error}", str(self._path), 0) from error
        return connection

    def after_fork(self) -> None:
        """Leave the parent's connection alone and open one of this process."""
        _abandoned.append(self._connection)
        self._lock = threading.Lock()
        self._connection = self._connect()

    def topics(self) -> dict[str, TopicConfig]:
        """Every topic by name, in alphabetical order."""
        with self._lock:
            rows = self._connection.execute("SELECT name, config FROM topics ORDER BY name").fetchall()
        return {name: TopicConfig(**json.loads(config)) for name, config in rows}

    def create(self, name: str, config: TopicConfig, created_ms: int) -> None:
        """Add a topic, or raise `TopicExistsError`."""
        try:
            self._write("INSERT INTO topics VALUES (?, ?, ?)", name, json.dumps(config.to_dict()), created_ms)
        except sqlite3.IntegrityError as error:
            raise TopicExistsError(f"topic {name!r} exists") from error

    def alter(self, name: str, config: TopicConfig) -> None:
        """Replace a topic's configuration, or raise `UnknownTopicError`."""
        if not self._write("UPDATE topics SET config = ? WHERE name = ?", json.dumps(config.to_dict()), name):
            raise UnknownTopicError(f"topic {name!r} does not exist")

    def delete(self, name: str) -> None:
        """Remove a topic, or raise `UnknownTopicError`."""
        if not self._write("DELETE FROM topics WHERE name = ?", name):
            raise UnknownTopicError(f"topic {name!r} does not exist")

    def _write(self, statement: str, *values: Any) -> int:
        with self._lock:
            try:
                return self._connection.execute(statement, values).rowcount
            except sqlite3.OperationalError as error:
                if _is_full(error):
                    raise DiskFullError(errno.ENOSPC, f"no room to write {self._path}: {error}") from error
                raise

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()


def _is_full(error: sqlite3.Error) -> bool:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
