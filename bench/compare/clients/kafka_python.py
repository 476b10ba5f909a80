"""kafka-python: Kafka's protocol in pure Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.compare.clients.kafka_client import KafkaClient
from bench.compare.values import Load

TUNED_PRODUCER = {"linger_ms": 5, "batch_size": 1_000_000}
TUNED_CONSUMER = {"max_partition_fetch_bytes": 8 << 20, "fetch_max_bytes": 64 << 20, "max_poll_records": 10_000}


class KafkaPython(KafkaClient):
    """`tuned`, or as it comes."""

    requires = ("kafka", "confluent_kafka")

    def _producer(self, **settings: Any) -> Any:
        from kafka import KafkaProducer

        tuned = TUNED_PRODUCER if self.tuned else {}
        return KafkaProducer(bootstrap_servers=self.place["bootstrap"], **{**tuned, **settings})

    def write(self, topic: str, load: Load) -> None:
        producer = self._producer()
        send, last = producer.send, None
        for values, _ in load.blocks():
            for value in values:
                last = send(topic, value)
        producer.flush()
        assert last is not None and last.succeeded()
        producer.close()

    def write_each(self, topic: str, load: Load) -> None:
        producer = self._producer(linger_ms=0)
        for values, _ in load.blocks():
            for value in values:
                producer.send(topic, value).get(timeout=30)
        producer.close()

    def _consumer(self, group: str | None, **settings: Any) -> Any:
        from kafka import KafkaConsumer

        tuned = TUNED_CONSUMER if self.tuned else {}
        common = {"bootstrap_servers": self.place["bootstrap"], "auto_offset_reset": "earliest", "group_id": group}
        return KafkaConsumer(**{**common, "enable_auto_commit": group is not None, **tuned, **settings})

    def read(self, topic: str, count: int, group: str | None) -> None:
        from kafka import TopicPartition

        consumer = self._consumer(group)
        if group is not None:
            consumer.subscribe([topic])
        else:
            consumer.assign([TopicPartition(topic, 0)])
            consumer.seek_to_beginning()
        seen = 0
        while seen < count:
            for records in consumer.poll(timeout_ms=1000).values():
                for record in records:
                    _ = record.value
                seen += len(records)
        consumer.close()

    def send_paced(self, topic: str, schedule: Any) -> None:
        producer = self._producer(linger_ms=0)
        for message in schedule:
            producer.send(topic, message)
        producer.flush()
        producer.close()

    def receive(self, topic: str) -> Iterator[list[bytes]]:
        from kafka import TopicPartition

        consumer = self._consumer(None)
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        consumer.poll(timeout_ms=300)
        yield []
        while True:
            for records in consumer.poll(timeout_ms=1000).values():
                yield [record.value for record in records]
