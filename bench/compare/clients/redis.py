"""Redis streams: XADD in pipelines, XREAD and groups in batches of 1,000."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from bench.compare.clients.base import Client
from bench.compare.values import Load

PIPELINE = 1000
TAKE = 1000


class Redis(Client):
    """redis-py over the loopback interface, hiredis if it is installed."""

    requires = ("redis",)
    footprint_records = 200_000
    missing: ClassVar[dict[str, str]] = {
        "keyed": "a stream has no partitions",
        "json-lz4": "no compression",
        "replay": "the whole log is held in memory",
    }

    def __init__(self, place: Any, **options: Any) -> None:
        super().__init__(place, **options)
        import redis

        self._redis: Any = redis.Redis(port=int(place["port"]))

    def drop(self, topic: str) -> None:
        self._redis.delete(topic)

    def close(self) -> None:
        self._redis.close()

    def _key(self, topic: str, partition: int | None) -> str:
        return topic if partition is None else f"{topic}-{partition}"

    def write(self, topic: str, load: Load, partition: int | None = None) -> None:
        key = self._key(topic, partition)
        most = max(1, min(PIPELINE, 4_000_000 // load.size))
        for values in load.chunks(most):
            pipe = self._redis.pipeline(transaction=False)
            for value in values:
                pipe.execute_command("XADD", key, "*", "v", value)
            pipe.execute()

    def write_each(self, topic: str, load: Load) -> None:
        execute = self._redis.execute_command
        for values, _ in load.blocks():
            for value in values:
                execute("XADD", topic, "*", "v", value)

    def read(self, topic: str, count: int, group: str | None, partition: int | None = None) -> None:
        key = self._key(topic, partition)
        if group is not None:
            return self._take(key, group, count)
        last, seen = b"0", 0
        while seen < count:
            entries = self._redis.xread({key: last}, count=TAKE)[0][1]
            for _, fields in entries:
                _ = fields[b"v"]
            last = entries[-1][0]
            seen += len(entries)
        return None

    def _take(self, key: str, group: str, count: int) -> None:
        self._redis.xgroup_create(key, group, id="0")
        seen = 0
        while seen < count:
            entries = self._redis.xreadgroup(group, "c", {key: ">"}, count=TAKE)[0][1]
            for _, fields in entries:
                _ = fields[b"v"]
            self._redis.xack(key, group, *(entry[0] for entry in entries))
            seen += len(entries)

    def fill(self, queue: str, load: Load) -> None:
        self.write(queue, load)

    def take(self, queue: str, count: int) -> None:
        self._take(queue, "workers", count)

    def send_paced(self, topic: str, schedule: Any) -> None:
        for messages in schedule.batches():
            pipe = self._redis.pipeline(transaction=False)
            for message in messages:
                pipe.execute_command("XADD", topic, "*", "v", message)
            pipe.execute()

    def receive(self, topic: str) -> Iterator[list[bytes]]:
        last = b"0"
        yield []
        while True:
            found = self._redis.xread({topic: last}, count=TAKE, block=1000)
            if found:
                entries = found[0][1]
                last = entries[-1][0]
                yield [fields[b"v"] for _, fields in entries]

    def first(self, topic: str) -> None:
        self._redis.xadd(topic, {"v": b"first"})
        assert self._redis.xread({topic: "0"})[0][1][0][1][b"v"] == b"first"
