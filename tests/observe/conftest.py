"""A broker in which a little of everything happened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock


@pytest.fixture
def clock() -> penstock.VirtualClock:
    return penstock.VirtualClock()


@pytest.fixture
def timed(tmp_path: Path, clock: penstock.VirtualClock) -> Iterator[penstock.Broker]:
    """A broker on the virtual clock."""
    with penstock.open(tmp_path / "timed", clock=clock) as opened:
        yield opened


@pytest.fixture
def busy(timed: penstock.Broker, clock: penstock.VirtualClock) -> penstock.Broker:
    """100 records in two partitions, of which a group committed 40; a queue with messages in every state."""
    topic = timed.create_topic("orders", partitions=2)
    for number in range(100):
        topic.append(b"v" * 20, partition=number % 2)
    with timed.consumer("orders", group="billing") as consumer:
        assert len(consumer.poll(max_records=40)) == 40
    queue = timed.queue("emails", max_receives=1)
    for _ in range(8):
        queue.send(b"m")
    queue.send(b"m", delay=1000)
    messages = queue.receive(4)
    messages[0].ack()
    messages[1].nack()
    messages[2].nack(failed=False)
    with timed.share_consumer("orders", "workers") as workers:
        workers.ack_many(workers.receive(10))
    clock.advance(5)
    return timed
