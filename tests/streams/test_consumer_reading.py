"""What a consumer delivers: order, turns, mixing the ways to read, damage in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from crc32c import crc32c

import penstock
from penstock._native.builder import BatchBuilder
from penstock.errors import CorruptionError
from penstock.streams.broker import Broker
from penstock.streams.topic_partition import TopicPartition

ZERO, ONE = TopicPartition("orders", 0), TopicPartition("orders", 1)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with penstock.open(tmp_path / "data", fsync="never") as opened:
        opened.create_topic("orders", partitions=2)
        yield opened


def store(broker: Broker, partition: TopicPartition, *values: bytes, timestamp_ms: int = 1000) -> None:
    """One batch of `values`."""
    batch = BatchBuilder()
    for value in values:
        batch.append(value, None, None, timestamp_ms)
    batch.seal()
    broker._log(*partition).append(batch)


def numbered(start: int, stop: int) -> list[bytes]:
    return [b"%d" % number for number in range(start, stop)]


def test_poll_returns_records_in_order_and_empty_at_the_end(broker: Broker) -> None:
    store(broker, ZERO, *numbered(0, 3))
    store(broker, ZERO, *numbered(3, 5))
    with broker.consumer("orders") as consumer:
        records = consumer.poll(timeout=0)
        assert [(record.topic, record.partition, record.offset, record.value) for record in records] == [
            ("orders", 0, number, b"%d" % number) for number in range(5)
        ]
        assert consumer.poll(timeout=0) == []
        assert consumer.position(ZERO) == 5


def test_poll_gives_at_most_max_records_and_resumes_inside_a_batch(broker: Broker) -> None:
    store(broker, ZERO, *numbered(0, 10))
    with broker.consumer("orders", max_poll_records=3) as consumer:
        assert [record.value for record in consumer.poll(timeout=0)] == numbered(0, 3)
        assert consumer.position(ZERO) == 3
        assert [record.value for record in consumer.poll(max_records=4, timeout=0)] == numbered(3, 7)
        assert [record.value for record in consumer.poll(max_records=400, timeout=0)] == numbered(7, 10)


def test_partitions_take_turns(broker: Broker) -> None:
    for number in range(3):
        store(broker, ZERO, b"a%d" % number)
        store(broker, ONE, b"b%d" % number)
    with broker.consumer("orders", fetch_max_bytes=1) as consumer:
        values = [record.value for record in islice(consumer, 6)]
        assert values == [b"a0", b"b0", b"a1", b"b1", b"a2", b"b2"]


def test_a_poll_spans_partitions(broker: Broker) -> None:
    store(broker, ZERO, b"a")
    store(broker, ONE, b"b")
    with broker.consumer("orders") as consumer:
        assert [record.value for record in consumer.poll(timeout=0)] == [b"a", b"b"]


def test_iteration_poll_and_batches_mix_without_a_gap_or_a_repeat(broker: Broker) -> None:
    for start in range(0, 40, 10):
        store(broker, ZERO, *numbered(start, start + 10))
    with broker.consumer("orders") as consumer:
        got = [record.value for record in islice(consumer, 3)]
        assert consumer.position(ZERO) == 3
        got += [record.value for record in consumer.poll(max_records=4, timeout=0)]
        assert consumer.position(ZERO) == 7
        got += [next(consumer).value]
        for batch in consumer.poll_batches(timeout=0, max_bytes=1):
            got += batch.values()
        assert consumer.position(ZERO) == 10
        got += [next(consumer).value]
        for batch in consumer.poll_batches(timeout=0):
            got += batch.values()
        assert got == numbered(0, 40)
        assert consumer.poll(timeout=0) == []


def test_poll_batches_starts_at_the_position(broker: Broker) -> None:
    store(broker, ZERO, *numbered(0, 10))
    with broker.consumer("orders") as consumer:
        consumer.seek(ZERO, 4)
        (batch,) = consumer.poll_batches(timeout=0)
        assert list(batch.offsets) == list(range(4, 10))
        assert batch.values() == numbered(4, 10)
        assert consumer.poll_batches(timeout=0) == []


def test_poll_batches_keeps_to_max_bytes(broker: Broker) -> None:
    for _ in range(4):
        store(broker, ZERO, b"x" * 400)
        store(broker, ONE, b"y" * 400)
    with broker.consumer("orders") as consumer:
        sizes = []
        while batches := consumer.poll_batches(timeout=0, max_bytes=1000):
            sizes.append(sum(batch.count for batch in batches))
        assert sum(sizes) == 8
        assert max(sizes) == 2


def test_a_seek_forgets_what_was_fetched(broker: Broker) -> None:
    store(broker, ZERO, *numbered(0, 10))
    with broker.consumer("orders") as consumer:
        assert next(consumer).offset == 0
        consumer.seek(ZERO, 8)
        assert [next(consumer).offset, next(consumer).offset] == [8, 9]
        consumer.seek(ZERO, 2)
        assert consumer.poll(max_records=1, timeout=0)[0].offset == 2


def test_a_paused_partition_is_skipped_and_goes_on_where_it_was(broker: Broker) -> None:
    store(broker, ZERO, *numbered(0, 3))
    store(broker, ONE, b"b")
    with broker.consumer("orders") as consumer:
        assert next(consumer).value == b"0"
        consumer.pause(ZERO)
        assert consumer.paused() == {ZERO}
        assert [record.value for record in consumer.poll(timeout=0)] == [b"b"]
        assert consumer.poll_batches(timeout=0) == []
        consumer.resume(ZERO)
        assert [record.value for record in consumer.poll(timeout=0)] == [b"1", b"2"]


def flip_last_byte(broker: Broker, partition: TopicPartition) -> None:
    """Damage the last batch that is stored now."""
    log = broker._log(*partition)
    region = log.fetch(log.log_end_offset - 1, 1)
    assert region is not None
    with Path(region.path).open("r+b") as file:
        file.seek(region.position + len(region) - 1)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


@pytest.fixture
def damaged(broker: Broker) -> Broker:
    """orders-0: a good batch (0, 1), a bad one (2, 3), a good one (4); orders-1: one good record."""
    store(broker, ZERO, b"0", b"1")
    store(broker, ZERO, b"2", b"3")
    flip_last_byte(broker, ZERO)
    store(broker, ZERO, b"4")
    store(broker, ONE, b"other")
    return broker


def test_damage_is_raised_until_a_seek_passes_it_by_polls(damaged: Broker) -> None:
    with damaged.consumer("orders") as consumer:
        assert [record.value for record in consumer.poll(timeout=0)] == [b"0", b"1"]
        with pytest.raises(CorruptionError):
            consumer.poll(timeout=0)
        assert consumer.position(ZERO) == 2
        assert [record.value for record in consumer.poll(timeout=0)] == [b"other"]
        for _ in range(2):
            with pytest.raises(CorruptionError):
                consumer.poll(timeout=0)
        consumer.seek(ZERO, 4)
        assert [record.value for record in consumer.poll(timeout=0)] == [b"4"]


def test_damage_is_raised_until_a_seek_passes_it_by_iteration(damaged: Broker) -> None:
    with damaged.consumer("orders") as consumer:
        assert [next(consumer).value, next(consumer).value] == [b"0", b"1"]
        with pytest.raises(CorruptionError):
            next(consumer)
        assert next(consumer).value == b"other"
        for _ in range(2):
            with pytest.raises(CorruptionError):
                next(consumer)
        consumer.seek(ZERO, 4)
        assert next(consumer).value == b"4"


def test_damage_is_raised_until_a_seek_passes_it_by_batches(damaged: Broker) -> None:
    with damaged.consumer("orders") as consumer:
        got: list[bytes | None] = []
        errors = 0
        for _ in range(5):
            try:
                got += [value for batch in consumer.poll_batches(timeout=0) for value in batch.values()]
            except CorruptionError:
                errors += 1
        assert got == [b"0", b"1", b"other"]
        assert errors >= 2
        assert consumer.position(ZERO) == 2
        consumer.seek(ZERO, 4)
        assert [batch.values() for batch in consumer.poll_batches(timeout=0)] == [[b"4"]]


def contradictory_batch() -> bytes:
    """Three records, the second of which claims a longer value than there is; its CRC is right."""
    batch = BatchBuilder()
    for value in (b"0", b"1", b"2"):
        batch.append(value, None, None, 1000)
    batch.seal()
    data = bytearray(memoryview(batch))
    data[61 + 8 + 5] = 126  # header, first record, length to key length of the second
    data[17:21] = crc32c(data[21:]).to_bytes(4, "big")
    return bytes(data)


def test_a_contradiction_inside_a_batch_is_raised_until_a_seek_passes_it(broker: Broker) -> None:
    broker._log(*ZERO).append(contradictory_batch())
    store(broker, ZERO, b"3")
    store(broker, ONE, b"other")
    with broker.consumer("orders") as consumer:
        assert next(consumer).value == b"0"
        with pytest.raises(CorruptionError):
            next(consumer)
        assert consumer.position(ZERO) == 1
        assert next(consumer).value == b"other"
        for _ in range(2):
            with pytest.raises(CorruptionError):
                next(consumer)
            with pytest.raises(CorruptionError):
                consumer.poll(timeout=0)
            with pytest.raises(CorruptionError):
                consumer.poll_batches(timeout=0)
        assert consumer.position(ZERO) == 1
        consumer.seek(ZERO, 3)
        assert next(consumer).value == b"3"
