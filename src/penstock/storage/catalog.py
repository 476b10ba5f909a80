"""Metadata of a data directory in SQLite: topics and their configuration.

Process safety: SQLite's own (WAL, immediate transactions); a change rings the catalog's bell so that every process
reloads. Thread safety: one connection behind a lock. Crash policy: SQLite's; directories of a topic are made before its
row and removed after it. Invariant: a row always has its directories.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

from penstock.errors import TopicExistsError, UnknownTopicError
from penstock.storage.forks import closes_in_child, held, leave
from penstock.storage.sqlite import connect, typed
from penstock.storage.topic_config import TopicConfig

CATALOG_FILE = "catalog.sqlite3"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (
    name TEXT PRIMARY KEY,
    config TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;
"""


class Catalog:
    """The topics of a directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / CATALOG_FILE
        self._lock = held(threading.Lock())
        self._connection = self._connect()
        closes_in_child(self)

    def _connect(self) -> sqlite3.Connection:
        return connect(self._path, _SCHEMA, durable=True)

    def leave_parent(self, idle: bool) -> None:
        """In the child of a fork."""
        leave(self._connection, idle)
        self._lock = held(threading.Lock())

    def after_fork(self) -> None:
        """Open a connection of this process."""
        self._connection = self._connect()

    def topics(self) -> dict[str, TopicConfig]:
        """Every topic by name, in alphabetical order."""
        with self._lock, typed(self._path):
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
        with self._lock, typed(self._path):
            return self._connection.execute(statement, values).rowcount

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()
