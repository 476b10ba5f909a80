"""Looking at the newest records of a topic without being a reader of it: nothing is counted, no position moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock._native.records import Record, RecordCursor
from penstock.errors import OffsetOutOfRangeError

if TYPE_CHECKING:
    from penstock.queues.broker import Broker

_FETCH_BYTES = 1 << 18


def newest_records(broker: Broker, topic: str, most: int = 20) -> list[Record]:
    """Up to `most` records of a topic, the newest first. Raises `UnknownTopicError`, `CorruptionError`."""
    found: list[Record] = []
    for partition in range(broker.topic(topic).partitions):
        found += _newest(broker, topic, partition, most)
    found.sort(key=lambda record: (record.timestamp_ms, record.offset), reverse=True)
    return found[:most]


def _newest(broker: Broker, topic: str, partition: int, most: int) -> list[Record]:
    log = broker.topic(topic).log(partition)
    end = log.log_end_offset
    found: list[Record] = []
    offset = max(log.log_start_offset, end - most)
    region = None
    while offset < end:
        try:
            region = log.fetch(offset, _FETCH_BYTES, region)
        except OffsetOutOfRangeError:
            return found  # retention was faster
        if region is None:
            return found
        cursor = RecordCursor(topic, partition)
        cursor.feed(region, offset)
        while (record := cursor.next_record()) is not None:
            found.append(record)
        offset = region.next_offset
    return found
