"""pika: RabbitMQ's classic, quorum and stream queues over AMQP 0.9.1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from bench.compare.clients.base import Client, not_for
from bench.compare.values import Load

PREFETCH = 2000
ACKNOWLEDGED_AT_ONCE = 500
GONE = "reading removes: see queue"


class Pika(Client):
    """`kind`: classic, quorum or stream."""

    requires = ("pika",)
    footprint_records, replay_bytes = 20_000, 20_000_000
    missing: ClassVar[dict[str, str]] = {
        "keyed": "a queue has no partitions",
        "json-lz4": "no compression",
        "consume-group": "consumers of a queue are a group: see queue",
        "parallel": "one queue has no partitions",
    }

    def __init__(self, place: Any, kind: str = "classic", **options: Any) -> None:
        super().__init__(place, **options)
        self.kind = kind
        self._connection: Any = None

    @property
    def channel(self) -> Any:
        """Of a connection that the first use opens."""
        if self._connection is None:
            import pika

            parameters = pika.ConnectionParameters("127.0.0.1", int(self.place["port"]))
            self._connection = pika.BlockingConnection(parameters)
            self._channel = self._connection.channel()
            self._channel.basic_qos(prefetch_count=PREFETCH)
        return self._channel

    def close(self) -> None:
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    @staticmethod
    def properties() -> Any:
        """Persistent."""
        import pika

        return pika.BasicProperties(delivery_mode=2)

    def create(self, topic: str, partitions: int = 1, lz4: bool = False) -> None:
        self.channel.queue_declare(topic, durable=True, arguments={"x-queue-type": self.kind})

    def drop(self, topic: str) -> None:
        self.channel.queue_delete(topic)

    def write(self, topic: str, load: Load) -> None:
        from bench.compare.clients.pika_publisher import Publisher

        self.close()  # a blocking connection that nobody serves loses its heartbeats
        self._connection = None
        values = (value for values, _ in load.blocks() for value in values)
        Publisher(int(self.place["port"]), topic, values, self.properties()).run()

    def write_each(self, topic: str, load: Load) -> None:
        channel, properties = self.channel, self.properties()
        channel.confirm_delivery()
        for values, _ in load.blocks():
            for value in values:
                channel.basic_publish("", topic, value, properties)

    def _consume(self, queue: str, count: int) -> None:
        channel = self.channel
        arguments = {"x-stream-offset": "first"} if self.kind == "stream" else None
        for seen, (method, _, body) in enumerate(channel.consume(queue, arguments=arguments), 1):
            _ = body
            if seen == count or seen % ACKNOWLEDGED_AT_ONCE == 0:
                channel.basic_ack(method.delivery_tag, multiple=True)
            if seen == count:
                break
        channel.cancel()

    def read(self, topic: str, count: int, group: str | None) -> None:
        self._consume(topic, count)

    def replay(self, topic: str, count: int) -> None:
        self._consume(topic, count)

    def fill(self, queue: str, load: Load) -> None:
        self.create(queue)
        self.write(queue, load)

    def take(self, queue: str, count: int) -> None:
        self._consume(queue, count)

    def send_paced(self, topic: str, schedule: Any) -> None:
        channel, properties = self.channel, self.properties()
        for messages in schedule.batches():
            for message in messages:
                channel.basic_publish("", topic, message, properties)
        self._connection.process_data_events(0)

    def receive(self, topic: str) -> Iterator[list[bytes]]:
        channel, received, tags = self.channel, [], [0]
        arguments = {"x-stream-offset": "first"} if self.kind == "stream" else None

        def on_message(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            received.append(body)
            tags[0] = method.delivery_tag

        channel.basic_consume(topic, on_message, arguments=arguments)
        yield []
        while True:
            self._connection.process_data_events(1.0)
            yield received
            if received:
                channel.basic_ack(tags[0], multiple=True)
            received.clear()

    def first(self, topic: str) -> None:
        self._connection = None
        self.create(topic)
        self.channel.confirm_delivery()
        self.channel.basic_publish("", topic, b"first", self.properties())
        for _, _, body in self.channel.consume(
            topic, arguments={"x-stream-offset": "first"} if self.kind == "stream" else None
        ):
            assert body == b"first"
            break

    @classmethod
    def excuse(cls, kind: str, workload: str, options: Any) -> str | None:
        """By the kind of queue: a stream is a log, the others forget what was read."""
        stream = options["kind"] == "stream"
        if options["kind"] != "classic" and kind == "starting":
            return "the same server: see classic"
        if stream and kind == "queueing":
            return "reading a stream removes nothing"
        if stream and workload == "fsync-each":
            return "a stream does not fsync"
        if not stream and kind in ("reading", "replay"):
            return GONE
        return not_for(cls, kind, workload)
