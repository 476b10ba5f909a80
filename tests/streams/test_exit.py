"""A program that ends without closing anything loses nothing it sent."""

from __future__ import annotations

from pathlib import Path

from children import Child

import penstock

PROGRAM = """
import penstock
broker = penstock.open("data")
broker.create_topic("t")
broker.producer(linger_ms=60_000).send("t", b"kept")
"""


def test_records_are_stored_at_exit(tmp_path: Path) -> None:
    assert Child(PROGRAM, cwd=tmp_path).wait(60) == 0
    with penstock.open(tmp_path / "data") as broker, broker.consumer("t") as consumer:
        assert [record.value for record in consumer.poll(timeout=0)] == [b"kept"]
