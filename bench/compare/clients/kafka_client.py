"""What the clients of Kafka have in common: topics that have to be made, and `tuned` or as it comes."""

from __future__ import annotations

from typing import Any

from bench.compare.clients.base import Client
from bench.compare.clients.kafka_topics import Topics


class KafkaClient(Client):
    """`tuned`, or as it comes."""

    def __init__(self, place: Any, tuned: bool = True, **options: Any) -> None:
        super().__init__(place, **options)
        self.tuned = tuned
        self._lz4 = False

    @property
    def topics(self) -> Topics:
        """Administration."""
        return Topics(self.place["bootstrap"])

    def create(self, topic: str, partitions: int = 1, lz4: bool = False) -> None:
        self._lz4 = lz4
        self.topics.create(topic, partitions, lz4)

    def drop(self, topic: str) -> None:
        self.topics.drop(topic)
