"""Keeping a queue within `max_length` and `max_length_bytes`, exactly, whoever sends.

Senders of a limited queue take turns: counting, dropping heads and storing are one step under a lock between
processes. Lock order: the store's transaction (deduplication), this lock, the lock of the delivery state. Dead letters
of dropped messages are stored after the lock was released, so that queues may be each other's dead letters. A process
that is killed before that leaves them in flight: they come back at a time-out, and the next sender drops them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock._native.message import Message
from penstock.errors import PenstockError, QueueFullError
from penstock.queues.body_sizes import BodySizes
from penstock.queues.dead_letter import Headers
from penstock.storage.directory import SharedLock

if TYPE_CHECKING:
    from penstock.queues.queue import Queue

_log = logging.getLogger("penstock.queues")
_HOLD_MS = 30_000


class Admission:
    """The limits of one queue; any thread. Made for queues that have limits."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._sizes = BodySizes(queue)
        self._lock = SharedLock(Path(queue._deliveries[0].directory) / "senders.lock")

    def store(
        self, value: Any, key: bytes | None, headers: Headers, partition: int, dropped: list[Message], refuse: bool
    ) -> int:
        """Store a message, and append to `dropped` those that `settle` has to dead-letter afterwards; its offset.

        `refuse` False: a dead letter, or a message that comes back from there, is stored in any case.
        """
        with self._lock:
            self._make_room(len(memoryview(value)), dropped, refuse)
            return int(self._queue._append(value, key, headers, None, partition).offset)

    def settle(self, dropped: list[Message]) -> None:
        """Dead-letter what was dropped. What cannot be now comes back at its time-out, and is dropped again."""
        for message in dropped:
            try:
                self._queue._bury(message, "maxlen", None, None)
            except PenstockError:
                _log.exception("message %s was dropped at max_length, and its dead letter not stored", message.id)

    def _make_room(self, size_bytes: int, dropped: list[Message], refuse: bool) -> None:
        config = self._queue._config
        while self._too_full(size_bytes):
            if config.overflow == "reject-publish":
                if not refuse:
                    return
                raise QueueFullError(
                    f"queue {self._queue.name!r} is full: max_length is {config.max_length}, "
                    f"max_length_bytes is {config.max_length_bytes}"
                )
            head = self._head()
            if head is None:
                return  # the new message alone is over the limit: it is stored, and dropped by the next one
            if config.dead_letter is None and config.dead_letter_exchange is None:
                self._queue._bury(head, "maxlen", None, None)
            else:
                dropped.append(head)

    def _too_full(self, size_bytes: int) -> bool:
        config = self._queue._config
        if config.max_length is not None and self._ready_count(config.max_length - 1) >= config.max_length:
            return True
        most = config.max_length_bytes
        return most is not None and self._sizes.exceed(most - size_bytes, self._queue._clock.time_ms())

    def _ready_count(self, enough: int) -> int:
        """How many messages are ready, or an upper bound when that is not over `enough`."""
        deliveries = self._queue._deliveries
        bound = sum(int(delivery.log.log_end_offset) - delivery.start for delivery in deliveries)
        if bound <= enough:
            return bound
        now = self._queue._clock.time_ms()
        return sum(delivery.counts(now)[0] for delivery in deliveries)

    def _head(self) -> Message | None:
        """The oldest ready message of the lowest priority, acquired."""
        now = self._queue._clock.time_ms()
        for delivery in reversed(self._queue._deliveries):
            found: list[Message] = []
            exhausted = delivery.claim(self._queue, found, now, now + _HOLD_MS, 1, 0) or ()
            for message in [*found, *(one for one, _, _ in exhausted)]:
                return message
        return None

    def close(self) -> None:
        """Let go of what was opened."""
        self._sizes.close()
        self._lock.close()

    def after_fork(self) -> None:
        """In the child: locks and a consumer of its own."""
        self._lock.after_fork()
        self._sizes.after_fork()
