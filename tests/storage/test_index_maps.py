"""When the indexes of a segment are mapped, and when they are left alone."""

from __future__ import annotations

from pathlib import Path

import penstock
from penstock.storage.partition_log import PartitionLog

RECORDS = 40


def long_segment(broker: penstock.Broker) -> PartitionLog:
    """One sealed segment of 40 batches of a record each, with several index entries."""
    topic = broker.create_topic("t")
    for number in range(RECORDS):
        topic.append(b"%03d" % number * 300)
    log = topic.log(0)
    log.roll_active()
    return log


def segment_file(log: PartitionLog, suffix: str) -> Path:
    return log.directory / f"{0:020d}{suffix}"


def swapped_in(path: Path, data: bytes) -> None:
    """As compaction does it: another file takes the name."""
    other = path.with_suffix(".new")
    other.write_bytes(data)
    other.replace(path)


def test_indexes_are_mapped_once_something_is_looked_up(broker: penstock.Broker) -> None:
    log = long_segment(broker)
    first = log.fetch(0, 1)
    assert first is not None
    assert first.segment.index is None
    found = log.fetch(30, 1)
    assert found is not None
    assert (found.segment, found.next_offset) == (first.segment, 31)
    assert found.segment.index is not None
    assert found.segment.time_index is not None


def test_a_segment_without_indexes_is_looked_through(broker: penstock.Broker) -> None:
    log = long_segment(broker)
    segment_file(log, ".index").unlink()
    segment_file(log, ".timeindex").unlink()
    found = log.fetch(30, 1)
    assert found is not None
    assert (found.segment.index, found.segment.time_index, found.next_offset) == (None, None, 31)


def test_indexes_of_a_log_that_took_the_name_are_not_believed(broker: penstock.Broker) -> None:
    log = long_segment(broker)
    first = log.fetch(0, 1)
    assert first is not None
    path = segment_file(log, ".log")
    misleading = 35 * path.stat().st_size // RECORDS
    swapped_in(segment_file(log, ".index"), (5).to_bytes(4, "big") + misleading.to_bytes(4, "big"))
    swapped_in(path, path.read_bytes())
    found = log.fetch(30, 1)
    assert found is not None
    assert (found.segment, found.segment.index, found.next_offset) == (first.segment, None, 31)
