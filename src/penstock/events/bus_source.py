"""Where a group of handlers gets its events from: a share group of the topic, or a reader of one's own.

A delivery is a `penstock.Message`, or a `Copy` with the same few attributes. Sources are used by one receiving thread
at a time; settling is for any thread.
"""

from __future__ import annotations

import functools
import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from typing import Any

from penstock import (
    Broker,
    ClosedError,
    Message,
    Queue,
    Record,
    RecordTooLargeError,
    ShareGroup,
    StaleReceiptError,
    TopicPartition,
)
from penstock.storage.forks import held

Delivery = Any
LETTER_HEADERS_BYTES = 128 << 10
_log = logging.getLogger("penstock.bus")


class Source(ABC):
    """Gives out deliveries until each is settled by `ack`, `retry`, `bury` or `release`."""

    @abstractmethod
    def receive(self, most: int, wait: float) -> list[Delivery]:
        """Up to `most` deliveries, [] when none came in `wait` seconds."""

    @abstractmethod
    def ack(self, deliveries: Iterable[Delivery]) -> None:
        """They were dealt with."""

    @abstractmethod
    def retry(self, delivery: Delivery, delay: float) -> None:
        """It failed, and comes again after `delay` seconds."""

    @abstractmethod
    def release(self, deliveries: Iterable[Delivery], delay: float = 0.0) -> None:
        """They come again, which is no failure of theirs."""

    @abstractmethod
    def bury(self, delivery: Delivery, trace: str, error: BaseException, exhausted: bool) -> None:
        """It is given up: a dead letter. `exhausted`: because it failed so often."""

    @abstractmethod
    def wakeup(self) -> None:
        """Make a blocked `receive` return."""

    @abstractmethod
    def close(self) -> None:
        """End."""

    @abstractmethod
    def keep(self, deliveries: Iterable[Delivery], seconds: float) -> None:
        """They are still being worked on."""


class ShareSource(Source):
    """Competing consumers over all processes: a share group of the topic, and the queue of what was redriven."""

    def __init__(self, broker: Broker, topic: str, group: str, start: str, ordered: bool, visibility: float) -> None:
        self._broker = broker
        self._dead, self._again = dead_name(topic, group), retry_name(topic, group)
        self._attempts_max: int | None = None
        self._generation, self._has_again = -1, False
        self._options: dict[str, Any] = {
            "topic": topic, "group": group, "auto_offset_reset": start, "key_ordered": ordered,
            "visibility_timeout": visibility, "dead_letter": self._dead,
        }  # fmt: skip
        self._shared = self._open(None)

    def _open(self, attempts_max: int | None) -> ShareGroup:
        return self._broker.share_consumer(max_receives=attempts_max, **self._options)

    def limit(self, attempts_max: int | None) -> None:
        """Dead-letter what failed so often, also by the death of its process."""
        if attempts_max != self._attempts_max:
            self._attempts_max = attempts_max
            self._shared.close()
            self._shared = self._open(attempts_max)

    def receive(self, most: int, wait: float) -> list[Delivery]:
        if self._generation != self._broker.catalog_generation:
            self._generation = self._broker.catalog_generation
            self._has_again = self._again in self._broker.queues()
        if self._has_again:
            found = self._broker.queue(self._again).receive(most, wait=0)
            if found:
                return list(found)
        return list(self._shared.receive(most, wait=wait))

    def ack(self, deliveries: Iterable[Message]) -> None:
        for message in self._shared.ack_many(deliveries):
            _log.warning("acknowledged too late, it is somebody else's: %s", message.id)

    def retry(self, delivery: Message, delay: float) -> None:
        _settled(lambda: delivery.nack(delay=delay))

    def release(self, deliveries: Iterable[Message], delay: float = 0.0) -> None:
        for message in deliveries:
            _settled(functools.partial(message.nack, delay=delay, failed=False))

    def bury(self, delivery: Message, trace: str, error: BaseException, exhausted: bool) -> None:
        if exhausted and delivery.failure_count + 1 == delivery.queue.config.max_receives:
            _settled(lambda: delivery.__exit__(type(error), error, error.__traceback__))
        else:
            _settled(lambda: delivery.reject(trace))

    def keep(self, deliveries: Iterable[Message], seconds: float) -> None:
        for message in deliveries:
            if not message.settled:
                try:
                    message.extend(seconds)
                except StaleReceiptError:
                    _log.debug("message %s was settled meanwhile", message.id)

    def wakeup(self) -> None:
        self._shared.wakeup()

    def close(self) -> None:
        self._shared.close()


class Copy:
    """A delivery of `CopySource`."""

    __slots__ = ("due", "failure_count", "record", "settled")

    def __init__(self, record: Record) -> None:
        self.record = record
        self.failure_count = 0
        self.due = 0.0
        self.settled = False

    @property
    def value(self) -> bytes:
        """The record's value."""
        return self.record.value or b""

    @property
    def key(self) -> bytes | None:
        """The record's key."""
        return self.record.key

    @property
    def id(self) -> str:
        """Where it is stored."""
        return f"{self.record.topic}-{self.record.partition}-{self.record.offset}"


class CopySource(Source):
    """Every event since this source was made, for this source alone. What failed waits in memory; what came behind it
    with the same key waits with it.
    """

    def __init__(self, broker: Broker, topic: str, group: str, start: str) -> None:
        self._broker = broker
        self._topic, self._dead = topic, dead_name(topic, group)
        self._group = group
        self._consumer = broker.consumer(topic, auto_offset_reset=start)
        for partition in range(broker.topic(topic).partitions):
            self._consumer.position(TopicPartition(topic, partition))
        self._lock = held(threading.Lock())
        self._behind: dict[bytes | None, deque[Copy]] = {}  # by key: the one that failed, and those after it
        self._ready: deque[Copy] = deque()
        self._closed = False

    def receive(self, most: int, wait: float) -> list[Delivery]:
        now = self._broker.clock.monotonic()
        with self._lock:
            found = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
            heads = [waiting[0] for waiting in self._behind.values() if waiting]
            found += [head for head in heads if head.due <= now and head.settled]
            for head in found:
                head.settled = False
            later = min((head.due - now for head in heads if head.settled), default=wait)
        if not found:
            self._consumer_poll(most, max(0.0, min(wait, later)), found)
        return found

    def _consumer_poll(self, most: int, wait: float, found: list[Copy]) -> None:
        for record in self._consumer.poll(max_records=most, timeout=wait):
            copy = Copy(record)
            with self._lock:
                waiting = self._behind.get(copy.key)
                if waiting is not None:
                    waiting.append(copy)
                else:
                    found.append(copy)

    def ack(self, deliveries: Iterable[Copy]) -> None:
        with self._lock:
            for copy in deliveries:
                self._done(copy)

    def _done(self, copy: Copy) -> None:
        copy.settled = True
        waiting = self._behind.get(copy.key)
        if waiting and waiting[0] is copy:
            del self._behind[copy.key]
            waiting.popleft()
            self._ready.extend(waiting)

    def retry(self, delivery: Copy, delay: float) -> None:
        delivery.failure_count += 1
        self.release([delivery], delay)

    def release(self, deliveries: Iterable[Copy], delay: float = 0.0) -> None:
        with self._lock:
            for copy in deliveries:
                copy.due = self._broker.clock.monotonic() + delay
                copy.settled = True
                waiting = self._behind.setdefault(copy.key, deque())
                if copy not in waiting:
                    waiting.append(copy)

    def bury(self, delivery: Copy, trace: str, error: BaseException, exhausted: bool) -> None:
        record = delivery.record
        told = {
            "topic": record.topic, "partition": record.partition, "offset": record.offset, "group": self._group,
            "delivery-count": delivery.failure_count + 1, "reason": "delivery_limit" if exhausted else "rejected",
            "error": trace,
        }  # fmt: skip
        headers = [*record.headers, *((f"dead-letter-{name}", str(text).encode()) for name, text in told.items())]
        try:
            self._letters().send(delivery.value, headers=headers)
        except RecordTooLargeError:
            _log.exception("%s is dropped: it is too large for the queue of dead letters", delivery.id)
        self.ack([delivery])

    def _letters(self) -> Queue:
        if self._dead in self._broker.queues():
            return self._broker.queue(self._dead)
        most = self._broker.topic(self._topic).config.max_message_bytes + LETTER_HEADERS_BYTES
        return self._broker.queue(self._dead, max_receives=None, retention=None, max_message_bytes=most)

    def keep(self, deliveries: Iterable[Copy], seconds: float) -> None:
        """They have no time-out."""

    def wakeup(self) -> None:
        self._consumer.wakeup()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._consumer.close()


def dead_name(topic: str, group: str) -> str:
    """The queue of a group's dead letters."""
    return f"{topic}.{group}.dead"


def retry_name(topic: str, group: str) -> str:
    """The queue of what was redriven to a group."""
    return f"{topic}.{group}.retry"


def _settled(action: Any) -> None:
    try:
        action()
    except StaleReceiptError as error:
        _log.warning("settled too late, it is somebody else's: %s", error)
    except ClosedError:
        _log.warning("settled after the broker was closed; it comes again")
