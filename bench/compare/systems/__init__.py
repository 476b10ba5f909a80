"""The systems, by name, in the order of the table."""

from __future__ import annotations

from bench.compare.systems.base import System
from bench.compare.systems.chronicle import Chronicle
from bench.compare.systems.floor import Floor
from bench.compare.systems.kafka import Kafka
from bench.compare.systems.lmdb import Lmdb
from bench.compare.systems.nats import Nats
from bench.compare.systems.penstock import Penstock
from bench.compare.systems.rabbitmq import RabbitMQ
from bench.compare.systems.redis import Redis
from bench.compare.systems.rocksdb import Rocksdb
from bench.compare.systems.sqlite import Sqlite


def all_systems(kafka_bootstrap: str | None = None) -> dict[str, System]:
    """New instances, by name."""
    systems: list[System] = [
        Penstock(),
        Kafka(kafka_bootstrap),
        Redis(),
        RabbitMQ(),
        Nats(),
        Sqlite(),
        Lmdb(),
        Rocksdb(),
        Chronicle(),
        Floor(),
    ]
    return {system.name: system for system in systems}
