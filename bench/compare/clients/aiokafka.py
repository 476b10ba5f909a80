"""aiokafka: Kafka for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from bench.compare.clients.kafka_client import KafkaClient
from bench.compare.values import Load

TUNED_PRODUCER = {"linger_ms": 5, "max_batch_size": 1_000_000}
TUNED_CONSUMER = {"max_partition_fetch_bytes": 8 << 20, "fetch_max_bytes": 64 << 20}
IN_FLIGHT = 20


class Aiokafka(KafkaClient):
    """`tuned` fills whole batches itself, or as it comes with a call a message."""

    requires = ("aiokafka", "confluent_kafka")

    def __init__(self, place: Any, tuned: bool = True, **options: Any) -> None:
        super().__init__(place, tuned, **options)
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        self._loop.close()

    async def _producer(self, **settings: Any) -> Any:
        from aiokafka import AIOKafkaProducer

        tuned = TUNED_PRODUCER if self.tuned else {}
        made = AIOKafkaProducer(bootstrap_servers=self.place["bootstrap"], **{**tuned, **settings})
        await made.start()
        return made

    def write(self, topic: str, load: Load) -> None:
        self._loop.run_until_complete(self._write_batches(topic, load) if self.tuned else self._write(topic, load))

    async def _write(self, topic: str, load: Load) -> None:
        producer = await self._producer()
        futures = [await producer.send(topic, value) for values, _ in load.blocks() for value in values]
        await asyncio.gather(*futures)
        await producer.stop()

    async def _write_batches(self, topic: str, load: Load) -> None:
        producer = await self._producer()
        batch, futures = producer.create_batch(), []
        for values, _ in load.blocks():
            for value in values:
                if batch.append(key=None, value=value, timestamp=None) is None:
                    futures.append(await producer.send_batch(batch, topic, partition=0))
                    if len(futures) > IN_FLIGHT:
                        await futures.pop(0)
                    batch = producer.create_batch()
                    batch.append(key=None, value=value, timestamp=None)
        futures.append(await producer.send_batch(batch, topic, partition=0))
        await asyncio.gather(*futures)
        await producer.stop()

    def write_each(self, topic: str, load: Load) -> None:
        async def each() -> None:
            producer = await self._producer(linger_ms=0)
            for values, _ in load.blocks():
                for value in values:
                    await producer.send_and_wait(topic, value)
            await producer.stop()

        self._loop.run_until_complete(each())

    async def _consumer(self, topic: str, group: str | None) -> Any:
        from aiokafka import AIOKafkaConsumer, TopicPartition

        tuned = TUNED_CONSUMER if self.tuned else {}
        common = {"bootstrap_servers": self.place["bootstrap"], "auto_offset_reset": "earliest", "group_id": group}
        topics = () if group is None else (topic,)
        made = AIOKafkaConsumer(*topics, **{**common, "enable_auto_commit": group is not None, **tuned})
        await made.start()
        if group is None:
            made.assign([TopicPartition(topic, 0)])
            await made.seek_to_beginning()
        return made

    def read(self, topic: str, count: int, group: str | None) -> None:
        async def all_of_it() -> None:
            consumer, seen = await self._consumer(topic, group), 0
            while seen < count:
                found = await consumer.getmany(timeout_ms=1000, max_records=10_000 if self.tuned else None)
                for records in found.values():
                    for record in records:
                        _ = record.value
                    seen += len(records)
            await consumer.stop()

        self._loop.run_until_complete(all_of_it())

    def send_paced(self, topic: str, schedule: Any) -> None:
        async def paced() -> None:
            producer = await self._producer(linger_ms=0)
            for number in range(schedule.count):
                await asyncio.sleep(schedule.wait_s(number))
                await producer.send(topic, schedule.message(number))
            await producer.flush()
            await producer.stop()

        self._loop.run_until_complete(paced())

    def receive(self, topic: str) -> Iterator[list[bytes]]:
        consumer = self._loop.run_until_complete(self._consumer(topic, None))
        self._loop.run_until_complete(consumer.getmany(timeout_ms=300))
        yield []
        while True:
            found = self._loop.run_until_complete(consumer.getmany(timeout_ms=1000))
            for records in found.values():
                yield [record.value for record in records]
