"""confluent-kafka (librdkafka): the fastest Python client of Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

from bench.compare.clients.kafka_client import KafkaClient
from bench.compare.values import Load

TUNED_PRODUCER = {
    "linger.ms": 5,
    "batch.size": 1_000_000,
    "batch.num.messages": 100_000,
    "queue.buffering.max.messages": 2_000_000,
    "queue.buffering.max.kbytes": 1 << 20,
}
TUNED_CONSUMER = {
    "queued.min.messages": 1_000_000,
    "queued.max.messages.kbytes": 1 << 20,
    "fetch.queue.backoff.ms": 1,
    "fetch.message.max.bytes": 8 << 20,
}
BATCH = 10_000


class Confluent(KafkaClient):
    """`tuned`, or as it comes; `batch`: produce_batch instead of a call a message."""

    requires = ("confluent_kafka",)
    fixed = MappingProxyType({"queueing": 200_000})  # joining a share group takes seconds

    def __init__(self, place: Any, tuned: bool = True, batch: bool = False, **options: Any) -> None:
        super().__init__(place, tuned, **options)
        self.batch = batch
        self._base = {"bootstrap.servers": place["bootstrap"], "log_level": 0}

    def _producer(self, **settings: Any) -> Any:
        from confluent_kafka import Producer

        tuned = TUNED_PRODUCER if self.tuned else {}
        more = {"compression.type": "lz4"} if self._lz4 else {}
        return Producer({**self._base, "message.max.bytes": 4_000_000, **tuned, **more, **settings})

    def write(self, topic: str, load: Load, partition: int | None = None) -> None:
        producer = self._producer()
        if self.batch:
            self._write_batches(producer, topic, load)
        else:
            place = {} if partition is None else {"partition": partition}
            for values, keys in load.blocks():
                self._write_block(producer, topic, values, keys, place)
        assert producer.flush(120) == 0

    def _write_block(self, producer: Any, topic: str, values: list[bytes], keys: Any, place: dict[str, int]) -> None:
        produce, poll = producer.produce, producer.poll
        for number, value in enumerate(values):
            while True:
                try:
                    if keys is None:
                        produce(topic, value, **place)
                    else:
                        produce(topic, value, keys[number])
                    break
                except BufferError:  # the queue is full: let it drain a little
                    poll(0.01)
            if not number & 8191:
                poll(0)

    def _write_batches(self, producer: Any, topic: str, load: Load) -> None:
        most = max(1, min(BATCH, 64_000_000 // load.size))
        for values in load.chunks(most):
            messages = [{"value": value} for value in values]
            while messages:
                try:
                    producer.produce_batch(topic, messages)
                    messages = [message for message in messages if message.get("_error") is not None]
                except BufferError:
                    pass  # none was taken
                if messages:
                    producer.poll(0.01)
                    messages = [{"value": message["value"]} for message in messages]
            producer.poll(0)

    def write_each(self, topic: str, load: Load) -> None:
        producer = self._producer(**{"linger.ms": 0})
        for values, _ in load.blocks():
            for value in values:
                producer.produce(topic, value)
                producer.flush()

    def _consumer(self, group: str | None, **settings: Any) -> Any:
        from confluent_kafka import Consumer

        tuned = TUNED_CONSUMER if self.tuned else {}
        grouped = {"group.id": group or "none", "enable.auto.commit": group is not None}
        return Consumer({**self._base, "auto.offset.reset": "earliest", **grouped, **tuned, **settings})

    def read(self, topic: str, count: int, group: str | None, partition: int | None = None) -> None:
        from confluent_kafka import TopicPartition

        consumer = self._consumer(group)
        if group is not None:
            consumer.subscribe([topic])
        else:
            consumer.assign([TopicPartition(topic, partition or 0, 0)])
        seen, most = 0, BATCH if self.tuned else 500
        while seen < count:
            messages = consumer.consume(min(most, count - seen), 1.0)
            for message in messages:
                _ = message.value()
            seen += len(messages)
        consumer.close()

    def replay(self, topic: str, count: int) -> None:
        self.read(topic, count, None)

    def fill(self, queue: str, load: Load) -> None:
        self.create(queue)
        self.write(queue, load)

    def take(self, queue: str, count: int) -> float:
        """A share consumer that acknowledges what it was given by the next poll. Joining is not counted."""
        from confluent_kafka import ShareConsumer

        group = f"share-{queue}"
        self.topics.share_from_beginning(group)
        consumer: Any = ShareConsumer({**self._base, "group.id": group})
        consumer.subscribe([queue])
        seen, first, started = 0, 0, 0.0
        while seen < count:
            messages = consumer.poll(1.0)
            for message in messages:
                _ = message.value()
            seen += len(messages)
            if not first and seen:
                first, started = seen, time.perf_counter()
        consumer.commit_sync()
        taken = time.perf_counter() - started
        consumer.close()
        return taken * count / max(1, seen - first)

    def send_paced(self, topic: str, schedule: Any) -> None:
        linger_ms = 0 if schedule.rate <= 1000 else 1  # a request a message would drown the broker
        producer = self._producer(**{"linger.ms": linger_ms})
        for messages in schedule.batches():
            for message in messages:
                producer.produce(topic, message)
            producer.poll(0)
        producer.flush()

    def receive(self, topic: str) -> Iterator[list[bytes]]:
        from confluent_kafka import TopicPartition

        consumer = self._consumer(None, **{"fetch.wait.max.ms": 100})
        consumer.assign([TopicPartition(topic, 0, 0)])
        consumer.consume(1, 0.3)
        yield []
        while True:
            message = consumer.poll(1.0)
            if message is not None:
                yield [message.value()]

    def first(self, topic: str) -> None:
        from confluent_kafka import TopicPartition

        self.topics.create(topic, 1, False)
        producer = self._producer(**{"linger.ms": 0})
        producer.produce(topic, b"first")
        assert producer.flush(30) == 0
        consumer = self._consumer(None)
        consumer.assign([TopicPartition(topic, 0, 0)])
        assert consumer.consume(1, 30)[0].value() == b"first"
        consumer.close()
