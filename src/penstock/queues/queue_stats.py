"""How many messages of a queue or share group are in which state, how old the oldest is, and how fast they move."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock._native.delivery import Delivery
    from penstock.queues.share_group import ShareGroup


@dataclass(frozen=True, slots=True)
class QueueStats:
    """Exact counts of the messages of a queue, or of a share group of a topic, now."""

    name: str
    """Of the queue, or topic."""
    ready: int
    """Visible, or waiting for the earlier message of their group (SQS: ApproximateNumberOfMessages)."""
    in_flight: int
    """Received and neither settled nor timed out (SQS: ApproximateNumberOfMessagesNotVisible)."""
    delayed: int
    """Not visible yet (SQS: ApproximateNumberOfMessagesDelayed)."""
    dead: int
    """Kept here as dead; those in the `dead_letter` queue are that queue's."""
    age_of_oldest_s: float
    """Age of the oldest unsettled message in seconds (SQS: ApproximateAgeOfOldestMessage); 0 when there is none."""
    sent: int
    """Messages ever sent."""
    received: int
    """Deliveries ever made."""
    acknowledged: int
    """Messages ever acknowledged."""
    sent_per_s: float
    """Rates since this handle was asked before, by all processes; 0 the first time."""
    received_per_s: float
    acknowledged_per_s: float
    group: str = ""
    """The share group; a queue's has the queue's name."""


class Meter:
    """Takes the statistics of one handle; any thread."""

    def __init__(self, group: ShareGroup) -> None:
        self._group = group
        self._lock = threading.Lock()
        self._before: tuple[float, tuple[int, ...]] | None = None

    def read(self) -> QueueStats:
        """Exact counts now; does not read the messages, but for the timestamp of the oldest."""
        group = self._group
        now = group._clock.time_ms()
        ready = in_flight = delayed = dead = 0
        sent = received = acknowledged = 0
        oldest_ms = now
        for delivery in group._deliveries:
            counts = delivery.counts(now)
            ready, in_flight = ready + counts[0], in_flight + counts[1]
            delayed, dead = delayed + counts[2], dead + counts[3]
            oldest_ms = min(oldest_ms, self._sent_ms(delivery, counts[4], now))
            totals = delivery.totals
            received, acknowledged = received + totals[0], acknowledged + totals[1]
            sent += delivery.log.log_end_offset
        age = (now - oldest_ms) / 1000
        return QueueStats(
            group.topic_name, ready, in_flight, delayed, dead, age, sent, received, acknowledged,
            *self._rates(sent, received, acknowledged), group.group,
        )  # fmt: skip

    def _sent_ms(self, delivery: Delivery, offset: int, now: int) -> int:
        message = delivery.read(self._group, offset) if offset >= 0 else None
        return now if message is None else message.timestamp_ms

    def _rates(self, *totals: int) -> tuple[float, float, float]:
        with self._lock:
            now = self._group._clock.monotonic()
            before, self._before = self._before, (now, totals)
        if before is None or now <= before[0]:
            return (0.0, 0.0, 0.0)
        sent, received, acknowledged = (
            (new - old) / (now - before[0]) for new, old in zip(totals, before[1], strict=True)
        )
        return (sent, received, acknowledged)

    def after_fork(self) -> None:
        """In the child: a lock of its own."""
        self._lock = threading.Lock()
