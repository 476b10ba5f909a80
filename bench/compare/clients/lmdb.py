"""LMDB as a log: ascending 8-byte keys appended, read by a cursor."""

from __future__ import annotations

from typing import Any, ClassVar

from bench.compare.clients.key_value import KeyValueClient
from bench.compare.model import DISK
from bench.compare.values import Load

CHUNK = 10_000
MAP_BYTES = 8 << 30


class Lmdb(KeyValueClient):
    """A directory a topic. `sync=False` with a writable map where the page cache is enough."""

    requires = ("lmdb",)
    missing: ClassVar[dict[str, str]] = {
        "keyed": "no partitions",
        "json-lz4": "no compression",
        "consume-group": "no groups",
        "queue": "a key-value store",
        "latency": "readers are not woken",
    }

    def open(self, path: str) -> Any:
        import lmdb

        synced = self.place["durability"] == DISK
        return lmdb.open(path, map_size=MAP_BYTES, sync=synced, writemap=not synced)

    def write(self, topic: str, load: Load, partition: int | None = None) -> None:
        environment, number = self.store(topic), 0
        for values in load.chunks(CHUNK):
            with environment.begin(write=True) as transaction:
                put = transaction.put
                for value in values:
                    put(number.to_bytes(8, "big"), value, append=True)
                    number += 1

    def write_each(self, topic: str, load: Load) -> None:
        environment = self.store(topic)
        number = environment.stat()["entries"]
        for values, _ in load.blocks():
            for value in values:
                with environment.begin(write=True) as transaction:
                    transaction.put(number.to_bytes(8, "big"), value, append=True)
                number += 1

    def read(self, topic: str, count: int, group: str | None, partition: int | None = None) -> None:
        seen = 0
        with self.store(topic).begin() as transaction:
            for _ in transaction.cursor().iternext(keys=False, values=True):
                seen += 1
        assert seen == count

    def replay(self, topic: str, count: int) -> None:
        self.read(topic, count, None)

    def first(self, topic: str) -> None:
        with self.store(topic).begin(write=True) as transaction:
            transaction.put(b"0", b"first")
        with self.store(topic).begin() as transaction:
            assert transaction.get(b"0") == b"first"
