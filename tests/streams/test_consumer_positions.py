"""Where a consumer starts and goes on: policies, seeks, times, assignment, partitions that come and go."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock.clock import VirtualClock
from penstock.errors import InvalidConfigError, OffsetOutOfRangeError, UnknownTopicError
from penstock.streams.broker import Broker
from penstock.streams.offset_reset import OffsetReset
from penstock.streams.topic_partition import OffsetAndTimestamp, TopicPartition

ZERO, ONE, TWO = (TopicPartition("orders", number) for number in range(3))
HOUR_MS = 3_600_000


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def broker(tmp_path: Path, clock: VirtualClock) -> Iterator[Broker]:
    with penstock.open(tmp_path / "data", fsync="never", clock=clock) as opened:
        opened.create_topic("orders", partitions=2)
        yield opened


def append(broker: Broker, partition: int, count: int, timestamp_ms: int | None = None) -> None:
    topic = broker.topic("orders")
    for number in range(count):
        topic.append(b"%d" % number, partition=partition, timestamp_ms=timestamp_ms)


def test_latest_starts_at_the_end_as_of_construction(broker: Broker) -> None:
    append(broker, 0, 3)
    with broker.consumer("orders", auto_offset_reset="latest") as consumer:
        append(broker, 0, 1)
        assert [record.offset for record in consumer.poll(timeout=0)] == [3]


def test_by_duration_starts_that_far_back(broker: Broker, clock: VirtualClock) -> None:
    append(broker, 0, 2, timestamp_ms=clock.time_ms() - 2 * HOUR_MS)
    append(broker, 0, 2, timestamp_ms=clock.time_ms() - HOUR_MS // 2)
    append(broker, 1, 2, timestamp_ms=clock.time_ms() - 2 * HOUR_MS)
    with broker.consumer("orders", auto_offset_reset="by_duration:PT1H") as consumer:
        assert consumer.position(ZERO) == 2
        assert consumer.position(ONE) == 2


def test_none_needs_a_seek(broker: Broker) -> None:
    append(broker, 0, 2)
    with broker.consumer(auto_offset_reset="none") as consumer:
        consumer.assign([ZERO])
        with pytest.raises(OffsetOutOfRangeError, match="orders-0 has no position"):
            consumer.position(ZERO)
        with pytest.raises(OffsetOutOfRangeError, match="seek first"):
            consumer.poll(timeout=0)
        consumer.seek(ZERO, 1)
        assert [record.offset for record in consumer.poll(timeout=0)] == [1]


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [
        ("PT1H", HOUR_MS),
        ("P1DT2H3M4.5S", 93_784_500),
        ("PT90S", 90_000),
        ("P7D", 7 * 24 * HOUR_MS),
        ("PT0S", 0),
    ],
)
def test_durations(text: str, duration_ms: int) -> None:
    assert OffsetReset.parse(f"by_duration:{text}").duration_ms == duration_ms


NOT_ISO = ["", "P", "PT", "1H", "PT-1H", "P1M", "PT\u0661H"]


@pytest.mark.parametrize("bad", [f"by_duration:{text}" for text in NOT_ISO] + ["Earliest", "", None, 1, b"latest", []])
def test_bad_policies(broker: Broker, bad: object) -> None:
    with pytest.raises(InvalidConfigError, match="auto_offset_reset"):
        broker.consumer("orders", auto_offset_reset=bad)


def test_retention_passes_the_reader_by(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    append(broker, 0, 10)
    with broker.consumer("orders") as consumer:
        broker.delete_records(ZERO, 6)
        with caplog.at_level(logging.WARNING, logger="penstock.consumer"):
            assert [record.offset for record in consumer.poll(timeout=0)] == [6, 7, 8, 9]
        assert "offset 0 of orders-0 is not in the log (6 to 10)" in caplog.text


def test_retention_passes_a_reader_by_that_wants_an_error(broker: Broker) -> None:
    append(broker, 0, 10)
    append(broker, 1, 1)
    with broker.consumer("orders", auto_offset_reset="none") as consumer:
        consumer.seek(ZERO, 2)
        consumer.seek(ONE, 0)
        broker.delete_records(ZERO, 6)
        for _ in range(2):
            got = []
            with pytest.raises(OffsetOutOfRangeError, match=r"offset 2 of orders-0 .* 6 to 10"):
                for _ in range(2):
                    got += consumer.poll(timeout=0)
        assert consumer.position(ZERO) == 2
        assert consumer.position(ONE) == 1
        consumer.seek(ZERO, 6)
        assert len(consumer.poll(timeout=0)) == 4


def test_an_offset_beyond_the_end_applies_the_policy(broker: Broker) -> None:
    append(broker, 0, 3)
    with broker.consumer("orders", auto_offset_reset="latest") as consumer:
        consumer.seek(ZERO, 2**62)
        assert consumer.poll(timeout=0) == []
        assert consumer.position(ZERO) == 3


def test_seek_to_beginning_and_end(broker: Broker) -> None:
    append(broker, 0, 3)
    append(broker, 1, 2)
    with broker.consumer("orders") as consumer:
        consumer.seek_to_end()
        assert (consumer.position(ZERO), consumer.position(ONE)) == (3, 2)
        consumer.seek_to_beginning(ONE)
        assert (consumer.position(ZERO), consumer.position(ONE)) == (3, 0)
        broker.delete_records(ZERO, 2)
        consumer.seek_to_beginning()
        assert consumer.position(ZERO) == 2


def test_seek_to_timestamp_and_offsets_for_times(broker: Broker) -> None:
    for timestamp_ms in (1000, 2000, 3000):
        append(broker, 0, 1, timestamp_ms=timestamp_ms)
    with broker.consumer("orders") as consumer:
        assert consumer.seek_to_timestamp(ZERO, 1500) == 1
        assert next(consumer).timestamp_ms == 2000
        assert consumer.seek_to_timestamp(ZERO, 3001) == 3
        assert consumer.poll(timeout=0) == []
        found = consumer.offsets_for_times({ZERO: 2001, ONE: 0})
        assert found == {ZERO: OffsetAndTimestamp(2, 3000), ONE: None}


def test_offsets_and_lag(broker: Broker) -> None:
    append(broker, 0, 5)
    with broker.consumer("orders") as consumer:
        consumer.poll(max_records=2, timeout=0)
        assert consumer.lag() == {ZERO: 3, ONE: 0}
        broker.delete_records(ZERO, 4)
        assert consumer.lag() == {ZERO: 1, ONE: 0}
        assert consumer.beginning_offsets([ZERO]) == {ZERO: 4}
        assert consumer.end_offsets([ZERO, ONE]) == {ZERO: 5, ONE: 0}


def test_assign_replaces_and_keeps_positions_of_what_stays(broker: Broker) -> None:
    append(broker, 0, 3)
    append(broker, 1, 3)
    with broker.consumer() as consumer:
        consumer.assign([ZERO, ONE])
        consumer.seek(ZERO, 2)
        consumer.assign([ZERO])
        assert consumer.assignment() == {ZERO}
        assert consumer.position(ZERO) == 2
        assert [record.offset for record in consumer.poll(timeout=0)] == [2]
        with pytest.raises(UnknownTopicError):
            consumer.assign([ZERO, TopicPartition("orders", 9)])
        assert consumer.assignment() == {ZERO}
        consumer.assign([])
        assert consumer.assignment() == set()


@pytest.mark.parametrize("policy", ["earliest", "latest"])
def test_partitions_added_later_are_read_from_their_beginning(broker: Broker, policy: str) -> None:
    with broker.consumer("orders", auto_offset_reset=policy) as consumer:
        assert consumer.poll(timeout=0) == []
        broker.alter_topic("orders", partitions=3)
        append(broker, 2, 2)
        assert [(record.partition, record.offset) for record in consumer.poll(timeout=0)] == [(2, 0), (2, 1)]
        assert consumer.assignment() == {ZERO, ONE, TWO}


def test_a_deleted_topic_is_given_up_and_found_again_when_followed(broker: Broker) -> None:
    append(broker, 0, 4)
    with broker.consumer("orders") as consumer:
        consumer.poll(timeout=0)
        broker.delete_topic("orders")
        assert consumer.poll(timeout=0) == []
        assert consumer.assignment() == set()
        broker.create_topic("orders", partitions=1)
        append(broker, 0, 2)
        assert [record.offset for record in consumer.poll(timeout=0)] == [0, 1]


def test_a_deleted_topic_is_an_error_when_assigned(broker: Broker) -> None:
    with broker.consumer() as consumer:
        consumer.assign([ZERO])
        broker.delete_topic("orders")
        for _ in range(2):
            with pytest.raises(UnknownTopicError):
                consumer.poll(timeout=0)


def test_a_topic_made_again_is_read_from_its_start(broker: Broker) -> None:
    append(broker, 0, 2)
    with broker.consumer("orders") as consumer:
        consumer.poll(timeout=0)
        broker.delete_topic("orders")
        broker.create_topic("orders", partitions=2)
        append(broker, 0, 5)
        assert [record.offset for record in consumer.poll(timeout=0)] == [0, 1, 2, 3, 4]
