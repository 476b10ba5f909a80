"""Storing 100-byte values: beside RocksDB batches, a bare copy loop, SQLite inserts, and bare LZ4."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lz4.frame

import penstock
from bench.measure import Result, versus
from bench.native_copy import build
from bench.values import orders, texts

WIDTH = 100
BATCH = 1000
CHUNK = 1 << 17  # as the producer's batches
Action = Callable[[], int]


class Writing:
    """One directory, fresh files every round."""

    def __init__(self, directory: Path, count: int, rounds: int) -> None:
        self.directory, self.rounds = directory, rounds
        self.values = texts(count, WIDTH)
        self.joined = b"".join(self.values)
        self.copy = build(directory)

    def _fresh(self, name: str) -> Path:
        shutil.rmtree(self.directory / name, ignore_errors=True)
        path = self.directory / name
        path.mkdir()
        return path

    @contextmanager
    def _producer(self, **options: Any) -> Iterator[penstock.Producer]:
        with penstock.open(self._fresh("penstock"), fsync="never") as broker:
            broker.create_topic("t")
            with broker.producer(**options) as producer:
                yield producer

    @contextmanager
    def send_many(self) -> Iterator[Action]:
        with self._producer() as producer:

            def action() -> int:
                producer.send_many("t", self.values)
                producer.flush()
                return len(self.values)

            yield action

    @contextmanager
    def send(self) -> Iterator[Action]:
        with self._producer() as producer:

            def action() -> int:
                send = producer.send
                for value in self.values:
                    send("t", value)
                producer.flush()
                return len(self.values)

            yield action

    @contextmanager
    def append(self) -> Iterator[Action]:
        with penstock.open(self._fresh("penstock"), fsync="never") as broker:
            append = broker.create_topic("t").append

            def action() -> int:
                for value in self.values:
                    append(value)
                return len(self.values)

            yield action

    @contextmanager
    def rocksdict(self) -> Iterator[Action]:
        from rocksdict import Options, Rdict, WriteBatch

        database = Rdict(str(self._fresh("rocksdict")), Options(raw_mode=True))

        def action() -> int:
            for start in range(0, len(self.values), BATCH):
                batch = WriteBatch(raw_mode=True)
                for number, value in enumerate(self.values[start : start + BATCH], start):
                    batch.put(number.to_bytes(8, "big"), value)
                database.write(batch)
            return len(self.values)

        yield action
        database.close()

    @contextmanager
    def bare_copy(self) -> Iterator[Action]:
        with self.copy(self.directory / "copy.bin", self.joined, len(self.values), WIDTH) as loop:

            def action() -> int:
                loop()
                return len(self.values)

            yield action

    @contextmanager
    def sqlite(self) -> Iterator[Action]:
        connection = sqlite3.connect(self._fresh("sqlite") / "q.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("CREATE TABLE q (id INTEGER PRIMARY KEY, value BLOB)")
        values = self.values[:20_000]

        def action() -> int:
            for value in values:
                connection.execute("INSERT INTO q (value) VALUES (?)", (value,))
            return len(values)

        yield action
        connection.close()

    def run(self) -> list[Result]:
        """Every comparison of this module."""
        rounds = self.rounds
        return [
            versus("send_many of a list / rocksdict batches of 1,000", self.send_many, self.rocksdict, 10, rounds),
            versus("send_many of a list / bare native copy loop", self.send_many, self.bare_copy, 0.5, rounds),
            versus("send one at a time / rocksdict batches of 1,000", self.send, self.rocksdict, 4, rounds),
            versus("Topic.append / sqlite3 single inserts", self.append, self.sqlite, 15, rounds),
            self._lz4(),
        ]

    def _lz4(self) -> Result:
        values = orders(len(self.values) // 2)
        joined = b"".join(values)

        @contextmanager
        def ours() -> Iterator[Action]:
            with self._producer(compression_type="lz4") as producer:

                def action() -> int:
                    producer.send_many("t", values)
                    producer.flush()
                    return len(joined)

                yield action

        @contextmanager
        def bare() -> Iterator[Action]:
            def action() -> int:
                for start in range(0, len(joined), CHUNK):
                    lz4.frame.compress(joined[start : start + CHUNK])
                return len(joined)

            yield action

        return versus("lz4 on JSON / bare lz4.frame.compress", ours, bare, 0.7, self.rounds, "bytes/s")
