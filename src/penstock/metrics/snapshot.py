"""What there is now, and what all processes counted since the directory was made."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from penstock._native.metrics import FIRST_HISTOGRAM, HISTOGRAM_WORDS, HISTOGRAMS, PARTITION, SHARE, SLOT_WORDS
from penstock.metrics.histogram import Histogram, Words
from penstock.metrics.rates import Rates, rates_between

NOTHING = np.zeros(SLOT_WORDS, np.int64)
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3}


def _histogram(words: Words, kind: int, name: str) -> Histogram:
    start = FIRST_HISTOGRAM + HISTOGRAMS[kind].index(name) * HISTOGRAM_WORDS
    unit = _UNITS.get(name.rsplit("_", 1)[1], 1.0)
    return Histogram(words[start + 1 : start + HISTOGRAM_WORDS], float(words[start]) * unit, unit)


def _plain(value: Any) -> dict[str, Any]:
    """The fields of a snapshot as plain values, histograms as their percentiles."""
    found = {one.name: getattr(value, one.name) for one in fields(value) if one.repr}
    for name in value.HISTOGRAMS:
        found[name] = getattr(value, name).to_dict()
    return found


@dataclass(frozen=True, slots=True)
class _Log:
    """What partitions and topics have in common."""

    size_bytes: int
    """Bytes of stored batches."""
    records_appended: int
    """Records stored so far."""
    bytes_appended: int
    """Bytes of the batches stored so far, as stored."""
    batches_appended: int
    bytes_saved: int
    """Bytes that compression took off them."""
    records_read: int
    """Records delivered to consumers so far; those of queues count as received there."""
    bytes_read: int
    """Bytes of stored batches that consumers took."""
    fetches: int
    polls: int
    syncs: int
    """How often the log was forced to the disk."""
    errors: dict[str, int]
    """Calls that failed, by kind: disk_full io corruption out_of_range fenced out_of_order too_large conflict full."""
    words: Words = field(repr=False, compare=False)

    @property
    def failed(self) -> int:
        """Calls that failed, of every kind."""
        return sum(self.errors.values())

    @property
    def append_latency(self) -> Histogram:
        """Seconds to store a batch: its lock, copying and publishing; not compressing, not forcing it to the disk."""
        return _histogram(self.words, PARTITION, "append_ns")

    @property
    def poll_latency(self) -> Histogram:
        """Seconds that a poll which returned something took, without waiting."""
        return _histogram(self.words, PARTITION, "poll_ns")

    @property
    def fsync_latency(self) -> Histogram:
        """Seconds to force the log to the disk."""
        return _histogram(self.words, PARTITION, "sync_ns")

    @property
    def batch_records(self) -> Histogram:
        """Records in a stored batch."""
        return _histogram(self.words, PARTITION, "batch_records")

    @property
    def batch_bytes(self) -> Histogram:
        """Bytes of a stored batch."""
        return _histogram(self.words, PARTITION, "batch_bytes")

    @property
    def compression_ratio(self) -> float:
        """Bytes before compression over bytes stored; 1 when nothing was stored."""
        stored = self.bytes_appended
        return (stored + self.bytes_saved) / stored if stored else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**_plain(self), "compression_ratio": self.compression_ratio}


LOG_HISTOGRAMS = ("append_latency", "poll_latency", "fsync_latency", "batch_records", "batch_bytes")


@dataclass(frozen=True, slots=True)
class PartitionMetrics(_Log):
    """One partition of a topic."""

    topic: str
    partition: int
    log_start_offset: int
    log_end_offset: int

    HISTOGRAMS = LOG_HISTOGRAMS


@dataclass(frozen=True, slots=True)
class TopicMetrics(_Log):
    """A topic: the sums over its partitions."""

    name: str
    records: int
    """Offsets between the log's start and its end: records, fewer after compaction."""
    partitions: tuple[PartitionMetrics, ...]

    HISTOGRAMS = LOG_HISTOGRAMS

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**_Log.to_dict(self), "partitions": [partition.to_dict() for partition in self.partitions]}


@dataclass(frozen=True, slots=True)
class GroupPartitionMetrics:
    """A partition as a consumer group sees it."""

    topic: str
    partition: int
    committed: int | None
    """Committed offset; None when there is none."""
    log_end_offset: int
    lag: int
    """Records stored and not yet committed."""
    lag_s: float | None
    """Age of the next record to read, in seconds; 0 when there is none, None when it cannot be read."""
    member_id: str | None


@dataclass(frozen=True, slots=True)
class GroupMetrics:
    """A consumer group."""

    name: str
    members: int
    rebalances: int
    """How often partitions were assigned anew."""
    commits: int
    """Commits that moved an offset."""
    commits_refused: int
    """Commits of partitions that were another member's by then."""
    partitions: tuple[GroupPartitionMetrics, ...]

    @property
    def lag(self) -> int:
        """Records of all partitions that are stored and not yet committed."""
        return sum(partition.lag for partition in self.partitions)

    @property
    def lag_s(self) -> float:
        """Age of the oldest record to read, in seconds."""
        return max((partition.lag_s or 0.0 for partition in self.partitions), default=0.0)

    @property
    def consumed(self) -> int:
        """Sum of the committed offsets."""
        return sum(partition.committed or 0 for partition in self.partitions)

    @property
    def stored(self) -> int:
        """Sum of the log ends."""
        return sum(partition.log_end_offset for partition in self.partitions)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        names = ("name", "members", "rebalances", "commits", "commits_refused", "lag", "lag_s")
        rows = [{one.name: getattr(row, one.name) for one in fields(row)} for row in self.partitions]
        return {**{name: getattr(self, name) for name in names}, "partitions": rows}


@dataclass(frozen=True, slots=True)
class QueueMetrics:
    """A queue, or a share group of a topic."""

    name: str
    """The queue's name; of a share group, the group's."""
    topic: str
    ready: int
    in_flight: int
    delayed: int
    dead: int
    """Kept here as dead; those in a `dead_letter` queue are that queue's."""
    age_of_oldest_s: float
    """Age of the oldest unsettled message in seconds; 0 when there is none."""
    sent: int
    """Messages ever sent."""
    received: int
    """Deliveries ever made."""
    redelivered: int
    """Of these, of messages that had been delivered before."""
    timed_out: int
    """Deliveries that were not settled in time."""
    receives: int
    """Calls that received something."""
    acknowledged: int
    nacked: int
    """Deliveries that failed: nacked, or left by an exception."""
    released: int
    """Deliveries given back without a failure."""
    extended: int
    dead_lettered: int
    """Messages that became dead: rejected, or failed too often."""
    expired: int
    """Messages past their time to live."""
    dropped: int
    """Messages dropped because of a limit of length, or purged."""
    stale: int
    """Settlements refused because the message was received again since."""
    words: Words = field(repr=False, compare=False)

    HISTOGRAMS = ("wait", "processing", "receive_batch")

    @property
    def failures(self) -> int:
        """Deliveries that failed: nacked or timed out, or whose message was dead-lettered."""
        return self.nacked + self.timed_out + self.dead_lettered

    @property
    def wait(self) -> Histogram:
        """Seconds from sending to receiving, delays included."""
        return _histogram(self.words, SHARE, "wait_ms")

    @property
    def processing(self) -> Histogram:
        """Seconds from receiving to acknowledging."""
        return _histogram(self.words, SHARE, "processing_us")

    @property
    def receive_batch(self) -> Histogram:
        """Messages that one call received."""
        return _histogram(self.words, SHARE, "receive_records")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return _plain(self)


@dataclass(frozen=True, slots=True)
class ProducerMetrics:
    """A producer of this process."""

    producer_id: int
    """Marks its batches; -1 without idempotence."""
    buffered_records: int
    """Records accepted and not yet stored."""
    buffered_bytes: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """Everything at one moment; made by `Broker.metrics`. Counters are those of all processes, since the beginning."""

    timestamp_ms: int
    monotonic_s: float
    topics: dict[str, TopicMetrics]
    """Topics by name; queues are topics as well."""
    groups: dict[str, GroupMetrics]
    """Consumer groups by name."""
    queues: dict[str, QueueMetrics]
    """Queues by name."""
    share_groups: dict[tuple[str, str], QueueMetrics]
    """Share groups by topic and group."""
    producers: tuple[ProducerMetrics, ...]
    """The producers of this process."""

    def since(self, previous: Metrics) -> Rates:
        """What happened after `previous`, an earlier snapshot: rates, and the histograms of that time.

        Raises `InvalidArgumentError` when no time passed in between.
        """
        return rates_between(previous, self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "timestamp_ms": self.timestamp_ms,
            "topics": [topic.to_dict() for topic in self.topics.values()],
            "groups": [group.to_dict() for group in self.groups.values()],
            "queues": [queue.to_dict() for queue in self.queues.values()],
            "share_groups": [group.to_dict() for group in self.share_groups.values()],
            "producers": [{one.name: getattr(row, one.name) for one in fields(row)} for row in self.producers],
        }
