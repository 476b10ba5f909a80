"""A broker for timing single operations, and topics with records in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from bench.values import texts

RECORDS = 20_000


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[penstock.Broker]:
    """Nothing waits for the disk; old segments go, so that a long benchmark does not fill it."""
    with penstock.open(tmp_path / "data", fsync="never") as opened:
        opened.create_topic("t", retention_bytes=1 << 28, segment_bytes=1 << 26)
        yield opened


@pytest.fixture
def filled(broker: penstock.Broker) -> penstock.Broker:
    """20,000 values in `t`."""
    with broker.producer() as producer:
        producer.send_many("t", texts(RECORDS))
    return broker
