"""SQLite by hand: one table as a log and as a queue, WAL, as an expert would."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from typing import Any, ClassVar

from bench.compare.clients.base import Client
from bench.compare.model import DISK
from bench.compare.values import Load

CHUNK = 10_000
TAKE = 1000


class Sqlite(Client):
    """A file a topic: `id INTEGER PRIMARY KEY, value BLOB`."""

    missing: ClassVar[dict[str, str]] = {
        "keyed": "no partitions",
        "json-lz4": "no compression",
        "consume-group": "no groups",
    }

    def __init__(self, place: Any, **options: Any) -> None:
        super().__init__(place, **options)
        self._open: dict[str, sqlite3.Connection] = {}

    def connection(self, topic: str) -> sqlite3.Connection:
        """To the topic's file, made if it is not there."""
        if topic not in self._open:
            made = sqlite3.connect(f"{self.place['directory']}/{topic}.sqlite3", isolation_level=None, timeout=30)
            made.execute("PRAGMA journal_mode=WAL")
            made.execute(f"PRAGMA synchronous={'FULL' if self.place['durability'] == DISK else 'NORMAL'}")
            made.execute("PRAGMA cache_size=-65536")
            made.execute("PRAGMA mmap_size=1073741824")
            made.execute("CREATE TABLE IF NOT EXISTS q (id INTEGER PRIMARY KEY, value BLOB, taken INTEGER DEFAULT 0)")
            self._open[topic] = made
        return self._open[topic]

    def create(self, topic: str, partitions: int = 1, lz4: bool = False) -> None:
        self.connection(topic)

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()

    def write(self, topic: str, load: Load, partition: int | None = None) -> None:
        connection = self.connection(topic)
        for values in load.chunks(CHUNK):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO q (value) VALUES (?)", [(value,) for value in values])
            connection.execute("COMMIT")

    def write_each(self, topic: str, load: Load) -> None:
        execute = self.connection(topic).execute
        for values, _ in load.blocks():
            for value in values:
                execute("INSERT INTO q (value) VALUES (?)", (value,))

    def read(self, topic: str, count: int, group: str | None, partition: int | None = None) -> None:
        seen = 0
        for _ in self.connection(topic).execute("SELECT value FROM q ORDER BY id LIMIT ?", (count,)):
            seen += 1
        assert seen == count

    def replay(self, topic: str, count: int) -> None:
        self.read(topic, count, None)

    def fill(self, queue: str, load: Load) -> None:
        self.write(queue, load)

    def take(self, queue: str, count: int) -> None:
        """Mark a batch as taken, delete it when handled: two transactions a batch."""
        connection, seen = self.connection(queue), 0
        while seen < count:
            rows = connection.execute(
                "UPDATE q SET taken = 1 WHERE id IN (SELECT id FROM q WHERE taken = 0 ORDER BY id LIMIT ?)"
                " RETURNING id, value",
                (TAKE,),
            ).fetchall()
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("DELETE FROM q WHERE id = ?", [(row[0],) for row in rows])
            connection.execute("COMMIT")
            seen += len(rows)

    def send_paced(self, topic: str, schedule: Any) -> None:
        execute = self.connection(topic).execute
        for message in schedule:
            execute("INSERT INTO q (value) VALUES (?)", (message,))

    def receive(self, topic: str) -> Iterator[list[bytes]]:
        """SQLite does not wake readers: a poll every 200 us."""
        connection, after = self.connection(topic), 0
        yield []
        while True:
            rows = connection.execute("SELECT id, value FROM q WHERE id > ? ORDER BY id", (after,)).fetchall()
            if rows:
                after = rows[-1][0]
                yield [row[1] for row in rows]
            else:
                time.sleep(0.0002)

    def first(self, topic: str) -> None:
        self.connection(topic).execute("INSERT INTO q (value) VALUES (?)", (b"first",))
        assert self.connection(topic).execute("SELECT value FROM q").fetchall() == [(b"first",)]
