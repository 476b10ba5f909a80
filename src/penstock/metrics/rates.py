"""What happened between two snapshots."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock._native.metrics import HEAD_WORDS
from penstock.errors import InvalidArgumentError
from penstock.metrics.histogram import Histogram, Words

if TYPE_CHECKING:
    from penstock.metrics.snapshot import GroupMetrics, Metrics, QueueMetrics, TopicMetrics


@dataclass(frozen=True, slots=True)
class TopicRates:
    """A topic, per second of the time in between."""

    records_appended_per_s: float
    bytes_appended_per_s: float
    batches_appended_per_s: float
    records_read_per_s: float
    bytes_read_per_s: float
    polls_per_s: float
    syncs_per_s: float
    errors_per_s: float
    compression_ratio: float
    """Of what was stored in that time."""
    append_latency: Histogram
    """Of that time, as the other histograms."""
    poll_latency: Histogram
    fsync_latency: Histogram
    batch_records: Histogram


@dataclass(frozen=True, slots=True)
class GroupRates:
    """A consumer group, per second of the time in between."""

    consumed_per_s: float
    """Offsets that were committed."""
    stored_per_s: float
    """Offsets that were stored in its partitions."""
    commits_per_s: float
    rebalances: int
    lag: int
    catch_up_s: float
    """Seconds until nothing is left to read, if both go on like this: 0 when nothing is, infinite when it grows."""


@dataclass(frozen=True, slots=True)
class QueueRates:
    """A queue or share group, per second of the time in between."""

    sent_per_s: float
    received_per_s: float
    acknowledged_per_s: float
    failures_per_s: float
    redelivered_per_s: float
    dead_lettered_per_s: float
    error_rate: float
    """Failures over deliveries, 0 to 1."""
    catch_up_s: float
    """Seconds until no message is left, if it goes on like this: 0 when none is, infinite when they grow."""
    wait: Histogram
    processing: Histogram


@dataclass(frozen=True, slots=True)
class Rates:
    """Everything that happened in `seconds`; made by `Metrics.since`."""

    seconds: float
    topics: dict[str, TopicRates]
    groups: dict[str, GroupRates]
    queues: dict[str, QueueRates]
    share_groups: dict[tuple[str, str], QueueRates]


def rates_between(before: Metrics, after: Metrics) -> Rates:
    """See `Metrics.since`."""
    seconds = after.monotonic_s - before.monotonic_s
    if seconds <= 0:
        raise InvalidArgumentError(f"previous was taken {-seconds:g} seconds after this snapshot; give an earlier one")
    return Rates(
        seconds,
        {name: _topic(before.topics.get(name), topic, seconds) for name, topic in after.topics.items()},
        {name: _group(before.groups.get(name), group, seconds) for name, group in after.groups.items()},
        {name: _queue(before.queues.get(name), queue, seconds) for name, queue in after.queues.items()},
        {key: _queue(before.share_groups.get(key), group, seconds) for key, group in after.share_groups.items()},
    )


def _created_ms(words: Words) -> int:
    """When counting began there."""
    return int(words[HEAD_WORDS["created_ms"]])


class _Change:
    """How much a counter grew: all of it, when what it counts was made anew since."""

    def __init__(self, before: Any, after: Any, seconds: float) -> None:
        self._before, self._after, self._seconds = before, after, seconds
        if before is not None and hasattr(after, "words") and _created_ms(before.words) != _created_ms(after.words):
            self._before = None  # another of the same name

    def of(self, name: str) -> int:
        now: int = getattr(self._after, name)
        then: int = getattr(self._before, name) if self._before is not None else 0
        return now - then if now >= then else now

    def rate(self, name: str) -> float:
        return self.of(name) / self._seconds

    def histogram(self, name: str) -> Histogram:
        now: Histogram = getattr(self._after, name)
        return now.since(getattr(self._before, name) if self._before is not None else None)


def _topic(before: TopicMetrics | None, after: TopicMetrics, seconds: float) -> TopicRates:
    change = _Change(before, after, seconds)
    stored, saved = change.of("bytes_appended"), change.of("bytes_saved")
    return TopicRates(
        records_appended_per_s=change.rate("records_appended"),
        bytes_appended_per_s=change.rate("bytes_appended"),
        batches_appended_per_s=change.rate("batches_appended"),
        records_read_per_s=change.rate("records_read"),
        bytes_read_per_s=change.rate("bytes_read"),
        polls_per_s=change.rate("polls"),
        syncs_per_s=change.rate("syncs"),
        errors_per_s=change.rate("failed"),
        compression_ratio=(stored + saved) / stored if stored else 1.0,
        append_latency=change.histogram("append_latency"),
        poll_latency=change.histogram("poll_latency"),
        fsync_latency=change.histogram("fsync_latency"),
        batch_records=change.histogram("batch_records"),
    )


def _catch_up_s(left: int, out_per_s: float, in_per_s: float) -> float:
    if not left:
        return 0.0
    return left / (out_per_s - in_per_s) if out_per_s > in_per_s else math.inf


def _group(before: GroupMetrics | None, after: GroupMetrics, seconds: float) -> GroupRates:
    change = _Change(before if before is not None else after, after, seconds)
    consumed, stored = change.rate("consumed"), change.rate("stored")
    return GroupRates(
        consumed_per_s=consumed,
        stored_per_s=stored,
        commits_per_s=change.rate("commits"),
        rebalances=change.of("rebalances"),
        lag=after.lag,
        catch_up_s=_catch_up_s(after.lag, consumed, stored),
    )


def _queue(before: QueueMetrics | None, after: QueueMetrics, seconds: float) -> QueueRates:
    change = _Change(before, after, seconds)
    received, failures = change.of("received"), change.of("failures")
    left = after.ready + after.in_flight + after.delayed
    settled = (change.of("acknowledged") + change.of("dead_lettered") + change.of("expired")) / seconds
    return QueueRates(
        sent_per_s=change.rate("sent"),
        received_per_s=received / seconds,
        acknowledged_per_s=change.rate("acknowledged"),
        failures_per_s=failures / seconds,
        redelivered_per_s=change.rate("redelivered"),
        dead_lettered_per_s=change.rate("dead_lettered"),
        error_rate=min(1.0, failures / received) if received else (1.0 if failures else 0.0),
        catch_up_s=_catch_up_s(left, settled, change.rate("sent")),
        wait=change.histogram("wait"),
        processing=change.histogram("processing"),
    )
