"""Reading a range of a topic again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import penstock
from penstock.clock import VirtualClock

EPOCH_MS = 1_700_000_000_000


@pytest.fixture
def topic(tmp_path: Path):
    """Ten records a second apart, in turn in two partitions."""
    with penstock.open(tmp_path / "data", clock=VirtualClock(EPOCH_MS + 20_000)) as broker:
        made = broker.create_topic("t", partitions=2)
        for n in range(10):
            made.append(b"%d" % n, partition=n % 2, timestamp_ms=EPOCH_MS + 1000 * n)
        yield made


def values(records) -> str:
    """The digits that were read."""
    return b"".join(record.value for record in records).decode()


def moment(seconds: float) -> datetime:
    """So long after the first record."""
    return datetime.fromtimestamp(EPOCH_MS / 1000 + seconds, UTC)


def test_everything_is_merged_by_time(topic) -> None:
    assert values(topic.replay()) == "0123456789"
    assert values(topic.replay(partition=1)) == "13579"


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (moment(3), moment(7), "3456"),
        (moment(2.5), "latest", "3456789"),
        (moment(2.0001), moment(3.001), "3"),
        (EPOCH_MS + 4000, EPOCH_MS + 5000, "4"),
        (timedelta(seconds=14), "latest", "6789"),
        ("earliest", moment(-5), ""),
        (moment(60), "latest", ""),
        (1, 3, "2345"),
        (4, 400, "89"),
        ("by_duration:PT12S", "latest", "89"),
    ],
)
def test_ranges(topic, start, end, expected) -> None:
    assert values(topic.replay(start, end)) == expected


def test_records_that_come_meanwhile_are_not_part_of_it(topic) -> None:
    reading = topic.replay(partition=0)
    first = next(reading)
    topic.append(b"x", partition=0)
    assert first.value + b"".join(record.value for record in reading) == b"02468"


def test_aborted_records_are_left_out(topic) -> None:
    with topic._broker.producer(transactional_id="t") as producer:
        producer.begin_transaction()
        producer.send("t", b"aborted", partition=0)
        producer.flush()
        producer.abort_transaction()
    assert values(topic.replay(isolation_level="read_committed", partition=0)) == "02468"
    assert values(topic.replay(partition=0)) == "02468aborted"


def test_bad_ranges(topic) -> None:
    with pytest.raises(penstock.InvalidArgumentError, match="start is 5 and end is 2"):
        topic.replay(5, 2)
    with pytest.raises(penstock.PenstockError, match="start is None"):
        topic.replay(None)
    with pytest.raises(penstock.InvalidConfigError, match="tomorrow"):
        topic.replay(end="tomorrow")
    with pytest.raises(penstock.UnknownTopicError):
        topic.replay(partition=2)
    with pytest.raises(penstock.InvalidConfigError):
        list(topic.replay(isolation_level="serializable"))
