"""Reading a range of a topic again, beside whatever else goes on."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from penstock._native.records import Record
from penstock.errors import InvalidArgumentError
from penstock.streams.target_offset import target_offset
from penstock.streams.topic_partition import TopicPartition

if TYPE_CHECKING:
    from penstock.streams.broker import Broker


def replay(broker: Broker, topic: str, start: Any, end: Any, partition: int | None, isolation: str) -> Iterator[Record]:
    """See `Topic.replay`."""
    numbers = range(broker._topic_config(topic).partitions) if partition is None else [partition]
    ranges = []
    for number in numbers:
        log = broker._log(topic, number)
        first = max(target_offset("start", start, log, broker.clock), log.log_start_offset)
        last = min(target_offset("end", end, log, broker.clock), log.log_end_offset)
        if first > last and isinstance(start, int) and isinstance(end, int) and start > end:
            raise InvalidArgumentError(f"start is {start} and end is {end}; start must not be after end")
        ranges.append(_records(broker, TopicPartition(topic, number), first, last, isolation))
    return ranges[0] if len(ranges) == 1 else heapq.merge(*ranges, key=_timestamp)


def _timestamp(record: Record) -> int:
    return record.timestamp_ms


def _records(broker: Broker, place: TopicPartition, offset: int, end: int, isolation: str) -> Iterator[Record]:
    if offset >= end:
        return
    with broker.consumer(isolation_level=isolation, auto_offset_reset="earliest") as consumer:
        consumer.assign([place])
        consumer.seek(place, offset)
        while records := consumer.poll(max_records=1000, timeout=0):
            for record in records:
                if record.offset >= end:
                    return
                yield record
            if consumer.position(place) >= end:
                return
