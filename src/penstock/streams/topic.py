"""A handle on a topic: append one record at a time, describe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from penstock._native.appender import Appender
from penstock._native.lane import TopicLanes
from penstock._native.records import Record
from penstock.storage.partition_log import PartitionLog
from penstock.storage.topic_config import TopicConfig
from penstock.streams.lanes import open_lanes
from penstock.streams.replay import replay

if TYPE_CHECKING:
    from penstock.streams.broker import Broker


@dataclass(frozen=True, slots=True)
class PartitionDescription:
    """What a partition holds."""

    partition: int
    log_start_offset: int
    """First offset that can be read."""
    log_end_offset: int
    """Offset that the next record gets."""
    size_bytes: int
    """Bytes of stored batches."""
    segments: int
    """Number of segment files."""


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """What a topic holds, and its configuration."""

    name: str
    partitions: list[PartitionDescription]
    config: dict[str, Any]


class Topic(Appender):
    """A topic of an open broker; made by `Broker.topic`. Used by any number of threads."""

    def __init__(self, broker: Broker, name: str) -> None:
        super().__init__(broker, broker._catalog_bell, name)

    @property
    def config(self) -> TopicConfig:
        """The topic's configuration now."""
        config: TopicConfig = self._broker._topic_config(self.name)
        return config

    @property
    def partitions(self) -> int:
        """Number of partitions."""
        return self.config.partitions

    def log(self, partition: int) -> PartitionLog:
        """The log of one partition."""
        log: PartitionLog = self._broker._log(self.name, partition)
        return log

    def replay(
        self,
        start: str | int | datetime | timedelta = "earliest",
        end: str | int | datetime | timedelta = "latest",
        partition: int | None = None,
        isolation_level: str = "read_uncommitted",
    ) -> Iterator[Record]:
        """The records from `start` to before `end`, as they are now; nobody's position changes.

        `start`, `end`: as `to` of `Broker.reset_offsets`: "earliest", "latest", an offset, a point in time, or so long
        ago. `partition`: one of them (default: all, merged by timestamp; each keeps its order). Reading is lazy: what
        retention removes meanwhile is left out.

        Raises `UnknownTopicError`, `InvalidArgumentError`, `InvalidTypeError`, `InvalidConfigError`.
        """
        return replay(self._broker, self.name, start, end, partition, isolation_level)

    def describe(self) -> TopicDescription:
        """Offsets and sizes of every partition, and the configuration."""
        described = []
        for number in range(self.partitions):
            log = self.log(number)
            described.append(
                PartitionDescription(
                    number, log.log_start_offset, log.log_end_offset, log.size_bytes(), len(log.segments())
                )
            )
        return TopicDescription(self.name, described, self.config.to_dict())

    def _load_lanes(self) -> TopicLanes:
        return open_lanes(self._broker, self.name, None)

    def __repr__(self) -> str:
        return f"<penstock.Topic {self.name!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Topic, (self._broker, self.name)
