"""What the broker's tests share: reading a whole partition, and waiting with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import penstock


def read_partition(broker: penstock.Broker, topic: str = "t", partition: int = 0) -> list[tuple[int, bytes]]:
    """(offset, value) of every record, with the checksums verified."""
    out: list[tuple[int, bytes]] = []
    log = broker.topic(topic).log(partition)
    place = penstock.TopicPartition(topic, partition)
    with broker.consumer() as consumer:
        consumer.assign([place])
        consumer.seek(place, log.log_start_offset)
        while consumer.position(place) < log.log_end_offset:
            out += [(record.offset, record.value) for record in consumer.poll(max_records=10_000, timeout=5.0)]
    return out


def read_path(path: Path) -> list[tuple[int, bytes]]:
    with penstock.open(path) as broker:
        return read_partition(broker)


@pytest.fixture
def read() -> Callable[..., list[tuple[int, bytes]]]:
    return read_partition


@pytest.fixture
def read_directory() -> Callable[[Path], list[tuple[int, bytes]]]:
    return read_path


@pytest.fixture
def until() -> Callable[..., None]:
    def wait(true: Callable[[], bool], seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.01)

    return wait
