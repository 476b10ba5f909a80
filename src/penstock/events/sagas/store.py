"""The sagas of a directory as of a checkpoint: SQLite beside the log, so that opening and listing read no history.

It holds nothing that the log does not: `checkpoints` tells up to which offset of a partition the rows are complete, in
the same transaction as the rows, and what comes after is read from the log. Lost or behind, it is made again from the
log; ahead of it (a power cut took the log's end), its rows of the partition are dropped and made again.

Any thread and process. A former owner that comes back late changes nothing: checkpoints only grow.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path

from penstock.events.sagas.state import SagaState, decode_state, encode_state
from penstock.storage.forks import closes_in_child, held, leave
from penstock.storage.sqlite import connect, transaction, typed

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sagas (
    id TEXT PRIMARY KEY, partition INTEGER NOT NULL, definition TEXT NOT NULL, status TEXT NOT NULL,
    correlation TEXT NOT NULL, started_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL, finished INTEGER NOT NULL,
    state BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS by_status ON sagas(status) WHERE status != 'completed';
CREATE INDEX IF NOT EXISTS unfinished ON sagas(partition) WHERE finished = 0;
CREATE INDEX IF NOT EXISTS by_age ON sagas(updated_ms) WHERE finished = 1;
CREATE INDEX IF NOT EXISTS by_correlation ON sagas(correlation) WHERE correlation != id;
CREATE TABLE IF NOT EXISTS checkpoints (partition INTEGER PRIMARY KEY, offset INTEGER NOT NULL);
"""
_VARIABLES_MAX = 500


class SagaStore:
    """The file of one `Sagas` name; opened when it is first needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = held(threading.RLock())
        self._connection: sqlite3.Connection | None = None
        self._typed = typed(path)
        closes_in_child(self)

    def leave_parent(self, idle: bool) -> None:
        """In the child of a fork: the next use opens a connection of its own."""
        leave(self._connection, idle)
        self._connection = None
        self._lock = held(threading.RLock())

    def _open(self) -> sqlite3.Connection:
        """The file's connection; the lock is held."""
        if self._connection is None:
            self._path.parent.mkdir(exist_ok=True)
            self._connection = connect(self._path, _SCHEMA, durable=False)
        return self._connection

    def close(self) -> None:
        """Close the file; it is opened again when it is needed."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    # --- reading ---------------------------------------------------------------------------------------------------

    def checkpoints(self) -> dict[int, int]:
        """Offset of each partition up to which the rows are complete."""
        with self._lock, self._typed:
            return dict(self._open().execute("SELECT partition, offset FROM checkpoints"))

    def load(self, saga_id: str) -> SagaState | None:
        """One saga, or None."""
        with self._lock, self._typed:
            row = self._open().execute("SELECT state FROM sagas WHERE id = ?", (saga_id,)).fetchone()
        return None if row is None else decode_state(row[0])

    def known(self, saga_ids: list[str]) -> set[str]:
        """Those of the ids that have a row."""
        found: set[str] = set()
        with self._lock, self._typed:
            connection = self._open()
            for start in range(0, len(saga_ids), _VARIABLES_MAX):
                some = saga_ids[start : start + _VARIABLES_MAX]
                marks = ",".join("?" * len(some))
                found.update(row[0] for row in connection.execute(f"SELECT id FROM sagas WHERE id IN ({marks})", some))
        return found

    def unfinished(self, partition: int) -> list[SagaState]:
        """The sagas of a partition that have something left to do."""
        query = "SELECT state FROM sagas WHERE partition = ? AND finished = 0"
        with self._lock, self._typed:
            return [decode_state(row[0]) for row in self._open().execute(query, (partition,))]

    def select(self, status: str | None, definition: str | None, limit: int) -> list[SagaState]:
        """Sagas by status and definition."""
        given = {"status": status, "definition": definition}
        wanted = {name: value for name, value in given.items() if value is not None}
        clause = " AND ".join(f"{name} = ?" for name in wanted) or "1"
        if status is not None and status != "completed":
            clause += " AND status != 'completed'"  # so that the index of all others may serve
        query = f"SELECT state FROM sagas WHERE {clause} LIMIT ?"
        with self._lock, self._typed:
            return [decode_state(row[0]) for row in self._open().execute(query, (*wanted.values(), limit))]

    def count(self) -> dict[str, int]:
        """How many sagas have which status."""
        with self._lock, self._typed:
            return dict(self._open().execute("SELECT status, count(*) FROM sagas GROUP BY status"))

    def with_correlation(self, correlation: str) -> list[str]:
        """Ids of the sagas with a correlation id that is not their own id."""
        query = "SELECT id FROM sagas WHERE correlation = ? AND correlation != id"
        with self._lock, self._typed:
            return [row[0] for row in self._open().execute(query, (correlation,))]

    # --- writing ---------------------------------------------------------------------------------------------------

    def write(self, partition: int, offset: int, states: Iterable[SagaState]) -> bool:
        """A checkpoint: these states, and the offset up to which all of the partition's are complete.

        False, and nothing changed, when another owner made one further on.
        """
        rows = [_row(partition, state) for state in states]
        with self._lock, self._typed, transaction(self._open()) as connection:
            changed = connection.execute(
                "INSERT INTO checkpoints VALUES (?, ?) ON CONFLICT (partition)"
                " DO UPDATE SET offset = excluded.offset WHERE excluded.offset >= offset",
                (partition, offset),
            ).rowcount
            if changed:
                connection.executemany("INSERT OR REPLACE INTO sagas VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        return bool(changed)

    def forget_partition(self, partition: int) -> None:
        """Drop what is known of a partition, so that it is read from the log again."""
        with self._lock, self._typed, transaction(self._open()) as connection:
            connection.execute("DELETE FROM sagas WHERE partition = ?", (partition,))
            connection.execute("DELETE FROM checkpoints WHERE partition = ?", (partition,))

    def expire(self, before_ms: int) -> int:
        """Forget sagas that finished before, and signals for sagas that never began; returns how many."""
        with self._lock, self._typed, transaction(self._open()) as connection:
            over = connection.execute("DELETE FROM sagas WHERE finished = 1 AND updated_ms < ?", (before_ms,))
            never = connection.execute("DELETE FROM sagas WHERE status = 'pending' AND updated_ms < ?", (before_ms,))
            return over.rowcount + never.rowcount


def _row(partition: int, state: SagaState) -> tuple[object, ...]:
    return (
        state.id, partition, state.definition, state.status, state.correlation, state.started, state.updated,
        state.finished, encode_state(state),
    )  # fmt: skip
