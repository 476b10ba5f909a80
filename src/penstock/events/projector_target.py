"""Where a projection's effects and its checkpoint go: a SQL database, one transaction for both, or memory.

Crash policy: the checkpoint moves with the effects, or neither does. Process safety: the checkpoint says in the same
transaction from where it moves, so that of two projectors that read the same events one finds it moved, and starts
anew from there: no event has its effect twice, whoever runs.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, MutableMapping
from typing import Any

from penstock.events import sql as sql_module
from penstock.events.projection import Projection
from penstock.events.sql import Sql
from penstock.storage.forks import held

CHECKPOINTS = "penstock_checkpoints"
Applier = Callable[[Any, Any], None]
"""(database, recorded event) -> nothing."""


class Target(ABC):
    """A place for effects. Thread-safe."""

    @property
    @abstractmethod
    def db(self) -> Any:
        """What the projection's methods get."""

    @property
    @abstractmethod
    def lock(self) -> threading.RLock:
        """Held while it is used."""

    @abstractmethod
    def checkpoint(self) -> str | None:
        """The position up to which all effects are there; None: never begun."""

    @abstractmethod
    def apply(self, events: list[Any], apply: Applier, before: str | None, after: str) -> bool:
        """Have the effects of events and move the checkpoint; False when it was not at `before`: nothing happened."""

    @abstractmethod
    def close(self) -> None:
        """End."""


class SqlTarget(Target):
    """Any DB-API database."""

    def __init__(self, database: Any, projection: Projection, name: str) -> None:
        self.sql = Sql(database)
        self._projection = projection
        self._name = name
        with self.lock, self.sql.transaction(nested=False):
            self.sql.run(
                f"CREATE TABLE IF NOT EXISTS {CHECKPOINTS} (name VARCHAR(200) PRIMARY KEY, position VARCHAR(4000))"
            )

    @property
    def db(self) -> Any:
        return self.sql.connection

    @property
    def lock(self) -> threading.RLock:
        return self.sql.lock

    def checkpoint(self) -> str | None:
        with self.lock:
            if self.sql.is_sqlite or self.sql.in_transaction:
                return self._read()
            with self.sql.transaction(nested=False):
                return self._read()

    def _read(self) -> str | None:
        row = self.sql.one(f"SELECT position FROM {CHECKPOINTS} WHERE name = ?", self._name)
        return None if row is None else str(row[0])

    def apply(self, events: list[Any], apply: Applier, before: str | None, after: str) -> bool:
        with self.lock, self.sql.typed(), self.sql.transaction(nested=False):
            if not self.move(before, after):
                return False
            if before is None:
                self._projection.setup(self.db)
            db = self.db
            for event in events:
                sql_module.fault("apply")
                apply(db, event)
        return True

    def move(self, before: str | None, after: str) -> bool:
        """Move the checkpoint, and so hold its row until the transaction ends; False when it is elsewhere."""
        if before is not None:
            statement = f"UPDATE {CHECKPOINTS} SET position = ? WHERE name = ? AND position = ?"
            return self.sql.run(statement, after, self._name, before) == 1 or (after == before == self._read())
        if self._read() is not None:
            return False
        self.sql.run(f"INSERT INTO {CHECKPOINTS} (name, position) VALUES (?, ?)", self._name, after)
        return True

    def put(self, position: str) -> None:
        """Set the checkpoint, wherever it was."""
        self.sql.run(f"DELETE FROM {CHECKPOINTS} WHERE name = ?", self._name)
        self.sql.run(f"INSERT INTO {CHECKPOINTS} (name, position) VALUES (?, ?)", self._name, position)

    def close(self) -> None:
        self.sql.close()


class MemoryTarget(Target):
    """A mapping, or the projection itself: the checkpoint lives as long as the projector, and moves by the event."""

    def __init__(self, database: MutableMapping[Any, Any] | None, projection: Projection) -> None:
        self._db = projection if database is None else database
        self._lock = held(threading.RLock())
        self.position: str | None = None
        self._projection = projection

    @property
    def db(self) -> Any:
        return self._db

    @property
    def lock(self) -> threading.RLock:
        return self._lock

    def checkpoint(self) -> str | None:
        return self.position

    def apply(self, events: list[Any], apply: Applier, before: str | None, after: str) -> bool:
        with self.lock:
            if self.position != before:
                return False
            if before is None:
                self._projection.setup(self.db)
            for event in events:
                apply(self.db, event)
            self.position = after
        return True

    def close(self) -> None:
        """The mapping is the user's."""


def target_of(database: Any, projection: Projection, name: str) -> Target:
    """The target of a path, a DB-API connection, a mapping or None, or an error."""
    if database is None or isinstance(database, MutableMapping):
        return MemoryTarget(database, projection)
    return SqlTarget(database, projection, name)
