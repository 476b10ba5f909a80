"""LMDB as a log: ascending 8-byte keys appended, read by a cursor."""

from __future__ import annotations

from typing import Any, ClassVar

from bench.compare.clients.base import Client
from bench.compare.model import DISK
from bench.compare.values import Load

CHUNK = 10_000
MAP_BYTES = 8 << 30


class Lmdb(Client):
    """A directory a topic. `sync=False` with a writable map where the page cache is enough."""

    requires = ("lmdb",)
    missing: ClassVar[dict[str, str]] = {
        "keyed": "no partitions",
        "json-lz4": "no compression",
        "consume-group": "no groups",
        "queue": "a key-value store",
        "latency": "readers are not woken",
    }

    def __init__(self, place: Any, **options: Any) -> None:
        super().__init__(place, **options)
        self._open: dict[str, Any] = {}

    def environment(self, topic: str) -> Any:
        """Opened once a process."""
        if topic not in self._open:
            import lmdb

            path, synced = f"{self.place['directory']}/{topic}", self.place["durability"] == DISK
            self._open[topic] = lmdb.open(path, map_size=MAP_BYTES, sync=synced, writemap=not synced)
        return self._open[topic]

    def close(self) -> None:
        for environment in self._open.values():
            environment.close()

    def write(self, topic: str, load: Load, partition: int | None = None) -> None:
        environment, number = self.environment(topic), 0
        for values in load.chunks(CHUNK):
            with environment.begin(write=True) as transaction:
                put = transaction.put
                for value in values:
                    put(number.to_bytes(8, "big"), value, append=True)
                    number += 1

    def write_each(self, topic: str, load: Load) -> None:
        environment = self.environment(topic)
        number = environment.stat()["entries"]
        for values, _ in load.blocks():
            for value in values:
                with environment.begin(write=True) as transaction:
                    transaction.put(number.to_bytes(8, "big"), value, append=True)
                number += 1

    def read(self, topic: str, count: int, group: str | None, partition: int | None = None) -> None:
        seen = 0
        with self.environment(topic).begin() as transaction:
            for _ in transaction.cursor().iternext(keys=False, values=True):
                seen += 1
        assert seen == count

    def replay(self, topic: str, count: int) -> None:
        self.read(topic, count, None)

    def first(self, topic: str) -> None:
        with self.environment(topic).begin(write=True) as transaction:
            transaction.put(b"0", b"first")
        with self.environment(topic).begin() as transaction:
            assert transaction.get(b"0") == b"first"
