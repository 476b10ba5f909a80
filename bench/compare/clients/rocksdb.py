"""RocksDB (rocksdict) as a log: ascending 8-byte keys in write batches, read by an iterator."""

from __future__ import annotations

from typing import Any, ClassVar

from bench.compare.clients.key_value import KeyValueClient
from bench.compare.model import DISK
from bench.compare.values import Load

CHUNK = 1000


class Rocksdb(KeyValueClient):
    """A directory a topic; one process at a time."""

    requires = ("rocksdict",)
    missing: ClassVar[dict[str, str]] = {
        "keyed": "no partitions",
        "consume-group": "no groups",
        "queue": "a key-value store",
        "latency": "one process only",
        "parallel": "one process only",
    }

    def __init__(self, place: Any, **options: Any) -> None:
        super().__init__(place, **options)
        self._lz4 = False

    def open(self, path: str) -> Any:
        from rocksdict import DBCompressionType, Options, Rdict

        options = Options(raw_mode=True)
        options.set_compression_type(DBCompressionType.lz4() if self._lz4 else DBCompressionType.none())
        options.set_write_buffer_size(128 << 20)
        return Rdict(path, options)

    def create(self, topic: str, partitions: int = 1, lz4: bool = False) -> None:
        self._lz4 = lz4
        self.store(topic)

    def _options(self) -> Any:
        from rocksdict import WriteOptions

        options = WriteOptions()
        options.sync = self.place["durability"] == DISK
        return options

    def write(self, topic: str, load: Load, partition: int | None = None) -> None:
        from rocksdict import WriteBatch

        database, options, number = self.store(topic), self._options(), 0
        for values in load.chunks(CHUNK):
            batch = WriteBatch(raw_mode=True)
            put = batch.put
            for value in values:
                put(number.to_bytes(8, "big"), value)
                number += 1
            database.write(batch, options)

    def write_each(self, topic: str, load: Load) -> None:
        database, number = self.store(topic), self.options.get("next", 0)
        options = self._options()
        for values, _ in load.blocks():
            for value in values:
                database.put(number.to_bytes(8, "big"), value, options)
                number += 1
        self.options["next"] = number

    def read(self, topic: str, count: int, group: str | None, partition: int | None = None) -> None:
        seen = 0
        for _ in self.store(topic).values():
            seen += 1
        assert seen == count

    def replay(self, topic: str, count: int) -> None:
        self.read(topic, count, None)

    def first(self, topic: str) -> None:
        self.store(topic)[b"0"] = b"first"
        assert self.store(topic)[b"0"] == b"first"
