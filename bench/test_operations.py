"""Single operations, timed by pytest-benchmark: `pytest bench`. With `--benchmark-disable` a smoke test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock
from bench.conftest import RECORDS
from bench.values import texts
from penstock._native.builder import BatchBuilder
from penstock._native.murmur2 import murmur2
from penstock._native.words import WordTable


@pytest.mark.parametrize("how", ["list", "keys", "array", "ranges"])
def test_send_many(benchmark: Any, broker: penstock.Broker, how: str) -> None:
    values = texts(RECORDS)
    keys = [b"customer-%d" % (number % 1000) for number in range(RECORDS)]
    joined = np.frombuffer(b"".join(values), np.uint8)
    offsets = np.arange(0, len(joined) + 1, 100)
    with broker.producer() as producer:

        def action() -> None:
            if how == "array":
                producer.send_array("t", joined.reshape(-1, 100))
            elif how == "ranges":
                producer.send_array("t", (joined, offsets))
            else:
                producer.send_many("t", values, keys=keys if how == "keys" else None)
            producer.flush()

        benchmark(action)


@pytest.mark.parametrize("what", ["value", "key", "headers"])
def test_send(benchmark: Any, broker: penstock.Broker, what: str) -> None:
    options = {"value": {}, "key": {"key": b"k"}, "headers": {"headers": [("trace", b"1234")]}}[what]
    value = b"v" * 100
    with broker.producer() as producer:
        benchmark(lambda: producer.send("t", value, **options))


def test_append(benchmark: Any, broker: penstock.Broker) -> None:
    append, value = broker.topic("t").append, b"v" * 100
    benchmark(lambda: append(value))


def test_append_synced(benchmark: Any, tmp_path: Path) -> None:
    with penstock.open(tmp_path / "synced", fsync="always") as broker:
        append = broker.create_topic("t").append
        benchmark(lambda: append(b"v" * 100))


def test_transaction_of_one_record(benchmark: Any, broker: penstock.Broker) -> None:
    with broker.producer(transactional_id="bench") as producer:

        def action() -> None:
            with producer.transaction():
                producer.send("t", b"v" * 100)

        benchmark(action)


@pytest.mark.parametrize("how", ["list", "fixed", "ranges"])
def test_encode(benchmark: Any, how: str) -> None:
    values, builder = texts(1000), BatchBuilder(1 << 18)
    joined, offsets = b"".join(values), np.arange(0, 100_001, 100)

    def action() -> None:
        builder.reset()
        if how == "list":
            builder.append_list(values, 0, 1000, 1 << 30)
        elif how == "fixed":
            builder.append_fixed(joined, 100, 0, 1000, 1000, 1 << 30)
        else:
            builder.append_ranges(joined, offsets, 0, 1000, 1000, 1 << 30)

    benchmark(action)


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_seal(benchmark: Any, codec: str) -> None:
    builder = BatchBuilder(1 << 18)
    builder.append_list([b'{"order": %d, "total": 100}' % n for n in range(4000)], 0, 1000, 1 << 30)
    number = {"none": 0, "lz4": 3}[codec]
    benchmark(lambda: builder.seal(number))


@pytest.mark.parametrize("how", ["poll", "iterate", "values", "columns", "offsets", "arrow"])
def test_read(benchmark: Any, filled: penstock.Broker, how: str) -> None:
    if how == "arrow":
        pytest.importorskip("pyarrow")
    each = {
        "values": lambda batch: len(batch.values()),
        "columns": lambda batch: len(batch.value_starts),
        "offsets": lambda batch: len(batch.offsets),
        "arrow": lambda batch: batch.to_arrow().num_rows,
    }
    with filled.consumer("t") as consumer:

        def action() -> int:
            consumer.seek_to_beginning()
            seen = 0
            while seen < RECORDS:
                if how == "poll":
                    seen += len(consumer.poll(max_records=RECORDS, timeout=1))
                elif how == "iterate":
                    next(consumer)
                    seen += 1
                else:
                    seen += sum(each[how](batch) for batch in consumer.poll_batches(timeout=1))
            return seen

        assert benchmark(action) == RECORDS


def test_read_lz4(benchmark: Any, broker: penstock.Broker) -> None:
    with broker.producer(compression_type="lz4") as producer:
        producer.send_many("t", texts(RECORDS))
    with broker.consumer("t") as consumer:

        def action() -> int:
            consumer.seek_to_beginning()
            seen = 0
            while seen < RECORDS:
                seen += sum(len(batch.value_starts) for batch in consumer.poll_batches(timeout=1))
            return seen

        assert benchmark(action) == RECORDS


def test_seek_by_timestamp(benchmark: Any, filled: penstock.Broker) -> None:
    log = filled.topic("t").log(0)
    benchmark(lambda: log.offset_for_timestamp(1))


def test_read_by_offset(benchmark: Any, filled: penstock.Broker) -> None:
    offsets = np.arange(0, RECORDS, 100)
    read = filled.topic("t").read
    assert len(benchmark(lambda: read(offsets))) == len(offsets)


def test_commit(benchmark: Any, filled: penstock.Broker) -> None:
    with filled.consumer("t", group="g", enable_auto_commit=False) as consumer:
        consumer.poll()
        benchmark(consumer.commit)


def test_verify(benchmark: Any, filled: penstock.Broker, tmp_path: Path) -> None:
    assert benchmark(lambda: penstock.verify(tmp_path / "data").ok)


def test_metrics(benchmark: Any, filled: penstock.Broker) -> None:
    benchmark(filled.metrics)


def test_murmur2(benchmark: Any) -> None:
    benchmark(lambda: murmur2(b"customer-4711"))


def test_shared_word(benchmark: Any, tmp_path: Path) -> None:
    table = WordTable(str(tmp_path / "words"))
    table.reserve(1)
    benchmark(lambda: table.add(0, 1))


def test_open_and_close(benchmark: Any, filled: penstock.Broker, tmp_path: Path) -> None:
    filled.close()
    benchmark(lambda: penstock.open(tmp_path / "data", fsync="never").close())
