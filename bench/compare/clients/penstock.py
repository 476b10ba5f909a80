"""Penstock, in process: lists, single calls, arrays in; objects, values, columns out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.compare.clients.base import Client, Place
from bench.compare.model import DISK
from bench.compare.values import Load

TAKE = 1000
HOT_PATHS = ("produce", "poll", "iterate", "columns", "queue_acks")


class Penstock(Client):
    """`how` it is written: many, send, array; and read: records, values, columns."""

    requires = ("penstock",)
    paced_by_sleep = False

    def __init__(self, place: Place, how: str = "many", read: str = "records", **options: Any) -> None:
        super().__init__(place, **options)
        self.how, self.as_what = how, read
        self._broker: Any = None

    @property
    def broker(self) -> Any:
        """Opened by the first use, so that starting can be timed."""
        if self._broker is None:
            import penstock

            fsync = "always" if self.place["durability"] == DISK else "never"
            self._broker = penstock.open(self.place["directory"], fsync=fsync)
        return self._broker

    def create(self, topic: str, partitions: int = 1, lz4: bool = False) -> None:
        kind = "lz4" if lz4 else "none"
        self.broker.create_topic(topic, partitions=partitions, compression_type=kind)

    def ready(self, load: Load) -> None:
        if self.how == "array":
            _ = load.array
        super().ready(load)

    def drop(self, topic: str) -> None:
        if topic in self.broker.topics():
            self.broker.delete_topic(topic)

    def close(self) -> None:
        if self._broker is not None:
            self._broker.close()

    def write(self, topic: str, load: Load, partition: int | None = None) -> None:
        with self.broker.producer() as producer:
            if partition is not None:
                for values, _ in load.blocks():
                    producer.send_many(topic, values, partition=partition)
            elif self.how == "array":
                self._write_array(producer, topic, load)
            elif self.how == "send":
                send = producer.send
                for values, _ in load.blocks():
                    for value in values:
                        send(topic, value)
            else:
                for values, keys in load.blocks():
                    producer.send_many(topic, values, keys=keys)
            producer.flush()

    def _write_array(self, producer: Any, topic: str, load: Load) -> None:
        array, left = load.array, load.count
        while left:
            producer.send_array(topic, array[:left])
            left -= min(left, len(array))

    def write_each(self, topic: str, load: Load) -> None:
        append = self.broker.topic(topic).append
        for values, _ in load.blocks():
            for value in values:
                append(value)

    def read(self, topic: str, count: int, group: str | None, partition: int | None = None) -> None:
        from penstock import TopicPartition

        topics = () if partition is not None else (topic,)
        with self.broker.consumer(*topics, group=group) as consumer:
            if partition is not None:
                consumer.assign([TopicPartition(topic, partition)])
                consumer.seek_to_beginning()
            READERS[self.as_what](consumer, count)

    def replay(self, topic: str, count: int) -> None:
        self.read(topic, count, None)

    def fill(self, queue: str, load: Load) -> None:
        opened = self.broker.queue(queue, retention=None)
        for values in load.chunks(10_000):
            opened.send_many(values)

    def take(self, queue: str, count: int) -> None:
        opened, seen = self.broker.queue(queue, retention=None), 0
        while seen < count:
            messages = opened.receive(TAKE, wait=1)
            for message in messages:
                _ = message.value
            opened.ack_many(messages)
            seen += len(messages)

    def send_paced(self, topic: str, schedule: Any) -> None:
        append = self.broker.topic(topic).append
        for message in schedule:
            append(message)

    def receive(self, topic: str) -> Iterator[list[bytes]]:
        with self.broker.consumer(topic, auto_offset_reset="latest") as consumer:
            consumer.poll(timeout=0)
            yield []
            while True:
                yield [record.value for record in consumer.poll(timeout=1.0)]

    def metrics_cost(self, turns: int, count: int) -> dict[str, float]:
        """CPU time with metrics over CPU time without, by hot path."""
        from bench import metrics_cost

        places = Path(self.place["directory"])
        sides = metrics_cost.Side(places / "with", True, count), metrics_cost.Side(places / "without", False, count)
        found = {name: metrics_cost.cost(sides, name, turns) for name in HOT_PATHS}
        for side in sides:
            side.producer.close()
            side.broker.close()
        return found

    def first(self, topic: str) -> None:
        self.create(topic)
        self.broker.topic(topic).append(b"first")
        with self.broker.consumer(topic) as consumer:
            assert consumer.poll(timeout=5)[0].value == b"first"


def _records(consumer: Any, count: int) -> None:
    for record in itertools.islice(consumer, count):
        _ = record.value


def _values(consumer: Any, count: int) -> None:
    seen = 0
    while seen < count:
        for batch in consumer.poll_batches(timeout=1.0):
            for _ in batch.values():
                pass
            seen += batch.count


def _columns(consumer: Any, count: int) -> None:
    seen = 0
    while seen < count:
        for batch in consumer.poll_batches(timeout=1.0):
            seen += len(batch.value_starts)


READERS = {"records": _records, "values": _values, "columns": _columns}
