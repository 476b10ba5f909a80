"""How many bytes of messages a queue holds, for `max_length_bytes`: a cheap bound, and exactly when it matters."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from penstock.streams.topic_partition import TopicPartition

if TYPE_CHECKING:
    from penstock._native.delivery import Delivery
    from penstock.queues.queue import Queue
    from penstock.streams.consumer import Consumer
    from penstock.streams.record_batch import RecordBatch


class BodySizes:
    """Of one handle on a queue; any thread.

    The bound is what was unsettled when it was last counted, and everything that anybody sent since: only sent messages
    are looked at, each once. What is ready is never more than that.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._consumer: Consumer | None = None
        self._seen: dict[int, tuple[int, int]] = {}  # of a partition: up to which offset, how many bytes

    def exceed(self, most: int, now_ms: int) -> bool:
        """Whether the ready messages have more than `most` bytes."""
        with self._lock:
            return self._bound() > most and self._count(now_ms) > most

    def _bound(self) -> int:
        total = 0
        for delivery in self._queue._deliveries:
            number = delivery.log.number
            seen, size = self._seen.get(number, (delivery.start, 0))
            for batch in self._batches(number, seen):
                size += int(np.maximum(batch.value_lengths[batch.offsets >= seen], 0).sum())
                seen = batch.last_offset + 1
            self._seen[number] = seen, size
            total += size
        return total

    def _count(self, now_ms: int) -> int:
        return sum(self._count_in(delivery, now_ms) for delivery in self._queue._deliveries)

    def _count_in(self, delivery: Delivery, now_ms: int) -> int:
        number = delivery.log.number
        start, raw = delivery.unsettled(now_ms)
        kinds = np.frombuffer(raw, np.uint8)
        ready = unsettled = 0
        for batch in self._batches(number, start):
            places = batch.offsets - start
            inside = (places >= 0) & (places < len(kinds))
            kind = kinds[places[inside]]
            lengths = np.maximum(batch.value_lengths[inside], 0)
            ready += int(lengths[kind == 1].sum())
            unsettled += int(lengths[kind > 0].sum())
        self._seen[number] = start + len(kinds), unsettled
        return ready

    def _batches(self, number: int, offset: int) -> Iterator[RecordBatch]:
        queue = self._queue
        log = queue._broker._log(queue.name, number)
        offset = max(offset, log.log_start_offset)
        if offset >= log.log_end_offset:
            return
        if self._consumer is None:
            self._consumer = queue._broker.consumer()
        place = TopicPartition(queue.name, number)
        self._consumer.assign([place])
        self._consumer.seek(place, offset)
        while batches := self._consumer.poll_batches(timeout=0):
            yield from batches

    def close(self) -> None:
        """Let go of what was opened."""
        with self._lock:
            if self._consumer is not None:
                self._consumer.close()
                self._consumer = None

    def after_fork(self) -> None:
        """In the child: a lock and a consumer of its own."""
        self._lock = threading.Lock()
        self._consumer = None
