"""nats-py with JetStream."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any, ClassVar

from bench.compare.clients.base import Client
from bench.compare.values import Load

IN_FLIGHT = 4000
TAKE = 1000


class Nats(Client):
    """A stream a topic; a work-queue stream a queue."""

    requires = ("nats",)
    footprint_records, replay_bytes = 20_000, 30_000_000
    missing: ClassVar[dict[str, str]] = {
        "keyed": "a stream has no partitions",
        "json-lz4": "no compression by the client",
    }

    def __init__(self, place: Any, **options: Any) -> None:
        super().__init__(place, **options)
        self._loop = asyncio.new_event_loop()
        self._connection: Any = None

    def _run(self, action: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(action)

    @property
    def stream(self) -> Any:
        """JetStream over a connection that the first use opens."""
        if self._connection is None:
            import nats

            async def refuse(error: Exception) -> None:
                raise error

            options = {"allow_reconnect": False, "pending_size": 64 << 20, "error_cb": refuse, "connect_timeout": 1}
            self._connection = self._run(nats.connect(f"nats://127.0.0.1:{self.place['port']}", **options))
            self._stream = self._connection.jetstream(publish_async_max_pending=IN_FLIGHT)
        return self._stream

    def close(self) -> None:
        if self._connection is not None:
            self._run(self._connection.close())
        self._loop.close()

    def create(self, topic: str, partitions: int = 1, lz4: bool = False, work_queue: bool = False) -> None:
        from nats.js.api import RetentionPolicy, StorageType

        retention = RetentionPolicy.WORK_QUEUE if work_queue else RetentionPolicy.LIMITS
        names = [topic] if partitions == 1 else [f"{topic}-{number}" for number in range(partitions)]
        for name in names:
            self._run(self.stream.add_stream(name=name, subjects=[name], storage=StorageType.FILE, retention=retention))

    def drop(self, topic: str) -> None:
        self._run(self.stream.delete_stream(topic))

    def write(self, topic: str, load: Load, partition: int | None = None) -> None:
        name = topic if partition is None else f"{topic}-{partition}"
        stream = self.stream

        async def publish() -> None:
            last = None
            for values, _ in load.blocks():
                for value in values:
                    last = await stream.publish_async(name, value, wait_stall=60)
            await stream.publish_async_completed()
            if last is not None:
                await last

        self._run(publish())

    def write_each(self, topic: str, load: Load) -> None:
        stream = self.stream

        async def publish() -> None:
            for values, _ in load.blocks():
                for value in values:
                    await stream.publish(topic, value)

        self._run(publish())

    async def _pull(self, topic: str, durable: str | None, count: int, acknowledge: bool) -> None:
        from nats.js.api import AckPolicy, ConsumerConfig

        policy = AckPolicy.EXPLICIT if acknowledge else AckPolicy.NONE
        config = ConsumerConfig(ack_policy=policy, max_ack_pending=4 * TAKE if acknowledge else None)
        subscription = await self._stream.pull_subscribe(topic, durable=durable, config=config)
        seen = 0
        while seen < count:
            messages = await subscription.fetch(min(TAKE, count - seen), timeout=5)
            for message in messages:
                _ = message.data
                if acknowledge:
                    await message.ack()
            seen += len(messages)
        await self._connection.flush(timeout=30)
        await subscription.unsubscribe()

    def read(self, topic: str, count: int, group: str | None, partition: int | None = None) -> None:
        name = topic if partition is None else f"{topic}-{partition}"
        _ = self.stream
        self._run(self._pull(name, group, count, group is not None))

    def replay(self, topic: str, count: int) -> None:
        self.read(topic, count, None)

    def fill(self, queue: str, load: Load) -> None:
        self.create(queue, work_queue=True)
        self.write(queue, load)

    def take(self, queue: str, count: int) -> None:
        _ = self.stream
        self._run(self._pull(queue, "workers", count, True))

    def send_paced(self, topic: str, schedule: Any) -> None:
        """Published to the stream's subject without waiting for its acknowledgements, which would halve the rate."""
        _ = self.stream

        async def paced() -> None:
            for number in range(schedule.count):
                if (wait := schedule.wait_s(number)) > 0:
                    await asyncio.sleep(wait)
                await self._connection.publish(topic, schedule.message(number))
            await self._connection.flush(timeout=30)

        self._run(paced())

    def receive(self, topic: str) -> Iterator[list[bytes]]:
        subscription = self._run(self.stream.subscribe(topic, ordered_consumer=True))

        async def some() -> list[bytes]:
            found = [await subscription.next_msg(timeout=30)]
            while subscription.pending_msgs:
                found.append(await subscription.next_msg())
            return [message.data for message in found]

        yield []
        while True:
            yield self._run(some())

    def first(self, topic: str) -> None:
        self.create(topic)
        self._run(self.stream.publish(topic, b"first"))
        self._run(self._pull(topic, None, 1, False))
