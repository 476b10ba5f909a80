"""Takes a snapshot of the queues and share groups too.

Counts are exact; to have them, the state of every queue is mapped, and what was stored since is taken in, as receiving
does. Nothing is received, and no queue counts as used.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from penstock._native.delivery import Delivery
from penstock._native.metrics import SHARE, WORDS
from penstock.errors import CorruptionError, DiskFullError, UnknownTopicError
from penstock.metrics import Metrics, PartitionMetrics, QueueMetrics
from penstock.queues.delivery_store import PREFIX, groups_in, open_delivery
from penstock.streams.metrics_reader import Counters, MetricsReader, total_of

if TYPE_CHECKING:
    from penstock.queues.broker import Broker

_COUNTED = {
    **{name: name for name in ("received", "redelivered", "timed_out", "receives", "released", "extended")},
    **{name: name for name in ("expired", "dropped", "stale")},
    "nacked": "negative",
    "dead_lettered": "dead",
}
_WORDS = WORDS[SHARE]


class QueueMetricsReader(MetricsReader):
    """Takes snapshots of everything in a broker's directory."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._queue_broker = broker
        self._deliveries: dict[tuple[str, int, str], Delivery] = {}
        self._oldest: dict[tuple[str, int, str], tuple[int, float]] = {}
        self._last: dict[tuple[str, int, str], tuple[list[int], int, int]] = {}
        self._looked: dict[str, set[str]] = {}

    def _read(self, counters: Counters) -> Metrics:
        broker = self._queue_broker
        log_metrics = super()._read(counters)
        queues = broker.queues()
        found: dict[str, QueueMetrics] = {}
        for name, config in queues.items():
            state = self._queue(name, name, config.fifo, counters, log_metrics)
            if state is not None:
                found[name] = state
        share_groups: dict[tuple[str, str], QueueMetrics] = {}
        for topic, group in self._share_groups(log_metrics, counters):
            if not (topic == group and topic in queues):
                state = self._queue(topic, group, None, counters, log_metrics)
                if state is not None:
                    share_groups[topic, group] = state
        return dataclasses.replace(log_metrics, queues=found, share_groups=share_groups)

    def _forget(self) -> None:
        super()._forget()
        self._oldest.clear()
        self._last.clear()
        self._looked.clear()
        self._deliveries = {key: one for key, one in self._deliveries.items() if not one.log.deleted}

    def _share_groups(self, metrics: Metrics, counters: Counters) -> list[tuple[str, str]]:
        """Those of this directory: in the counters, and when a topic is seen first, in its files."""
        for topic in metrics.topics:
            if topic not in self._looked:
                self._looked[topic] = set(groups_in(self._broker.path / f"{topic}-0"))
        found = {(topic, group) for topic, groups in self._looked.items() for group in groups}
        found |= {(topic, group) for kind, topic, _, group in counters.slots if kind == SHARE}
        return sorted((topic, group) for topic, group in found if topic in metrics.topics)

    def _delivery(self, topic: str, number: int, group: str, ordered: bool | None) -> Delivery | None:
        """The state of a group in a partition; None when there is none, and none is to be made."""
        key = (topic, number, group)
        log = self._broker._log(topic, number)
        known = self._deliveries.get(key)
        if known is not None and known.log is log:
            return known
        directory = log.directory / f"{PREFIX}{group}"
        if ordered is None:
            if not (directory / "control").exists():
                return None
            ordered = (directory / "slots").exists()
        delivery = open_delivery(self._broker, log, group, ordered=ordered)
        self._deliveries[key] = delivery
        return delivery

    def _queue(
        self, topic: str, group: str, ordered: bool | None, counters: Counters, metrics: Metrics
    ) -> QueueMetrics | None:
        """What a queue or share group holds; None when it is being deleted, or was."""
        now_ms = self._broker.clock.time_ms()
        counts = [0, 0, 0, 0]
        acknowledged = sent = 0
        age_s = 0.0
        rows = []
        try:
            for partition in metrics.topics[topic].partitions if topic in metrics.topics else ():
                delivery = self._delivery(topic, partition.partition, group, ordered)
                if delivery is None:
                    continue
                now, oldest = self._counts((topic, partition.partition, group), delivery, now_ms, partition)
                counts = [one + other for one, other in zip(counts, now, strict=True)]
                if oldest >= 0:
                    stored_ms = self._stored_ms((topic, partition.partition, group), delivery, oldest, now_ms)
                    age_s = max(age_s, (now_ms - stored_ms) / 1000)
                acknowledged += delivery.totals[1]
                sent += partition.log_end_offset
                rows.append(counters.of(SHARE, topic, partition.partition, group))
        except UnknownTopicError:
            return None
        if not rows:
            return None
        words = total_of(rows)
        counted: dict[str, int] = {field: int(words[_WORDS[name]]) for field, name in _COUNTED.items()}
        ready, in_flight, delayed, dead = counts
        return QueueMetrics(
            name=group, topic=topic, ready=ready, in_flight=in_flight, delayed=delayed, dead=dead,
            age_of_oldest_s=age_s, sent=sent, acknowledged=acknowledged, words=words, **counted,
        )  # fmt: skip

    def _counts(
        self, key: tuple[str, int, str], delivery: Delivery, now_ms: int, partition: PartitionMetrics
    ) -> tuple[list[int], int]:
        """Messages by state, and the oldest one's offset. On a full disk, where what was stored since cannot be taken
        in, that counts as ready: metrics are wanted most then.
        """
        try:
            *now, oldest = delivery.counts(now_ms)
        except DiskFullError:
            before, oldest, end = self._last.get(key, ([0, 0, 0, 0], -1, partition.log_start_offset))
            return [before[0] + max(0, partition.log_end_offset - end), *before[1:]], oldest
        self._last[key] = (now, oldest, partition.log_end_offset)
        return now, oldest

    def _stored_ms(self, key: tuple[str, int, str], delivery: Delivery, offset: int, now_ms: int) -> float:
        known = self._oldest.get(key)
        if known is not None and known[0] == offset:
            return known[1]
        try:
            message = delivery.read(None, offset)
        except CorruptionError:
            message = None  # it cannot be read, and so neither can its age
        stored_ms = float(now_ms) if message is None else float(message.timestamp_ms)
        self._oldest[key] = (offset, stored_ms)
        return stored_ms
