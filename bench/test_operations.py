"""Single operations, timed by pytest-benchmark: `pytest bench`. With `--benchmark-disable` a smoke test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from bench.writing import distinct_values
from penstock._native.builder import BatchBuilder
from penstock._native.murmur2 import murmur2

RECORDS = 20_000


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[penstock.Broker]:
    with penstock.open(tmp_path / "data", fsync="never") as opened:
        opened.create_topic("t", retention_bytes=1 << 28, segment_bytes=1 << 26)
        yield opened


@pytest.fixture
def filled(broker: penstock.Broker) -> penstock.Broker:
    with broker.producer() as producer:
        producer.send_many("t", distinct_values(RECORDS))
    return broker


def test_send_many(benchmark: Any, broker: penstock.Broker) -> None:
    values = distinct_values(RECORDS)
    with broker.producer() as producer:

        def action() -> None:
            producer.send_many("t", values)
            producer.flush()

        benchmark(action)


def test_send(benchmark: Any, broker: penstock.Broker) -> None:
    value = b"v" * 100
    with broker.producer() as producer:
        benchmark(lambda: producer.send("t", value))


def test_append(benchmark: Any, broker: penstock.Broker) -> None:
    append, value = broker.topic("t").append, b"v" * 100
    benchmark(lambda: append(value))


def test_encode_list(benchmark: Any) -> None:
    values, builder = distinct_values(1000), BatchBuilder(1 << 18)

    def action() -> None:
        builder.reset()
        builder.append_list(values, 0, 1000, 1 << 30)

    benchmark(action)


def test_seal_lz4(benchmark: Any) -> None:
    builder = BatchBuilder(1 << 18)
    builder.append_list([b'{"order": %d, "total": 100}' % n for n in range(4000)], 0, 1000, 1 << 30)
    benchmark(lambda: builder.seal(3))


@pytest.mark.parametrize("how", ["poll", "values", "columns"])
def test_read(benchmark: Any, filled: penstock.Broker, how: str) -> None:
    with filled.consumer("t") as consumer:

        def action() -> int:
            consumer.seek_to_beginning()
            seen = 0
            while seen < RECORDS:
                if how == "poll":
                    seen += len(consumer.poll(max_records=RECORDS, timeout=1))
                else:
                    for batch in consumer.poll_batches(timeout=1):
                        seen += len(batch.values() if how == "values" else batch.value_starts)
            return seen

        assert benchmark(action) == RECORDS


def test_seek_by_timestamp(benchmark: Any, filled: penstock.Broker) -> None:
    log = filled.topic("t").log(0)
    benchmark(lambda: log.offset_for_timestamp(1))


def test_murmur2(benchmark: Any) -> None:
    benchmark(lambda: murmur2(b"customer-4711"))
