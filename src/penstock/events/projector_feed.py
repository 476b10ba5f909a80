"""What a projector reads: the events of an event store, or of a bus's topic, from a position on.

A position is what the checkpoint keeps, as text: of a store its global position, of a topic the next offset of each
partition (JSON).
"""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from penstock import Broker, Consumer, Record, TopicPartition
from penstock.clock import Clock
from penstock.errors import InvalidArgumentError, InvalidTypeError
from penstock.events.bus import EventBus
from penstock.events.envelope import Envelope
from penstock.events.errors import InvalidEventError
from penstock.events.event import Event
from penstock.events.store.event_store import EventStore

Position = Any


class Batch(NamedTuple):
    """Some events, and the position after them."""

    events: list[Any]
    position: Position


class Feed(ABC):
    """Events in order. Used by one thread at a time."""

    clock: Clock
    start: Position

    @abstractmethod
    def check_open(self) -> None:
        """Raises `ClosedError` when what it reads was closed."""

    @abstractmethod
    def read(self, after: Position, limit: int) -> Batch:
        """Up to `limit` events after a position; without events the position may still have moved."""

    @abstractmethod
    def wait(self, after: Position, timeout: float) -> bool:
        """Block until there is something after the position; False when the time passed before."""

    @abstractmethod
    def head(self) -> Position:
        """The position after everything that is stored now."""

    @abstractmethod
    def after_event(self, before: Position, event: Any) -> Position:
        """The position after an event that was read from `before`."""

    @abstractmethod
    def between(self, after: Position, until: Position) -> int:
        """How many records lie between two positions."""

    @abstractmethod
    def checked(self, given: Any) -> Position:
        """A position that a user gave, or an error."""

    def covers(self, position: Position, wanted: Position) -> bool:
        """Whether one who is at `position` has everything up to `wanted`."""
        return self.between(position, wanted) <= 0

    @abstractmethod
    def to_text(self, position: Position) -> str:
        """As the checkpoint keeps it."""

    @abstractmethod
    def from_text(self, text: str) -> Position:
        """What `to_text` made."""

    @abstractmethod
    def close(self) -> None:
        """End."""


class StoreFeed(Feed):
    """All events of a store, in their global order."""

    start = 0

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self.clock = store.broker.clock

    def check_open(self) -> None:
        self._store._core.check_open()

    def read(self, after: int, limit: int) -> Batch:
        head = self._store.position
        found = list(self._store.read_all(after=after, limit=limit, until=head)) if head > after else []
        return Batch(found, found[-1].position if len(found) == limit else max(head, after))

    def wait(self, after: int, timeout: float) -> bool:
        return self._store.wait(after, timeout)

    def head(self) -> int:
        return self._store.position

    def after_event(self, before: int, event: Any) -> int:
        return int(event.position)

    def between(self, after: int, until: int) -> int:
        return until - after

    def checked(self, given: Any) -> int:
        position = getattr(given, "position", given)
        if type(position) is not int:
            raise InvalidTypeError(f"position is {given!r}; a position of the store (an int) is needed")
        if position < 0:
            raise InvalidArgumentError(f"position is {given!r}; allowed is an int from 0")
        return position

    def to_text(self, position: int) -> str:
        return str(position)

    def from_text(self, text: str) -> int:
        return int(text)

    def close(self) -> None:
        """The store is the user's."""


class TopicEvent:
    """An event of a topic, decoded when it is asked for, as `RecordedEvent` is."""

    __slots__ = ("_envelope", "record")

    def __init__(self, record: Record) -> None:
        self.record = record
        self._envelope: Envelope | None = None

    @property
    def envelope(self) -> Envelope:
        """The envelope. Raises `InvalidEventError`."""
        if self._envelope is None:
            self._envelope = Envelope.from_json(self.record.value or b"")
        return self._envelope

    @property
    def type(self) -> str:
        """The event's type; "" for what is no event."""
        try:
            return self.envelope.type
        except InvalidEventError:
            return ""

    @property
    def event(self) -> Event:
        """The typed event. Raises `UnknownEventTypeError`, `InvalidEventError`."""
        return self.envelope.event()

    @property
    def timestamp_ms(self) -> int:
        """When it was stored, in milliseconds since the epoch."""
        return self.record.timestamp_ms


class TopicFeed(Feed):
    """The events of a bus's topic: each partition in its order."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self.clock = broker.clock
        self._places = [TopicPartition(topic, number) for number in range(broker.topic(topic).partitions)]
        self._consumer: Consumer = broker.consumer(isolation_level="read_committed")
        self._consumer.assign(self._places)
        self.start = [0] * len(self._places)
        self._lock = threading.RLock()  # a consumer is one thread's at a time

    def check_open(self) -> None:
        self._broker._check_open()

    def read(self, after: list[int], limit: int) -> Batch:
        return self._poll(after, limit, 0.0)

    def _poll(self, after: list[int], limit: int, timeout: float) -> Batch:
        with self._lock:
            for place, offset in zip(self._places, after, strict=True):
                if self._consumer.position(place) != offset:
                    self._consumer.seek(place, offset)
            records = self._consumer.poll(max_records=limit, timeout=timeout)
            position = [self._consumer.position(place) for place in self._places]
        return Batch([TopicEvent(record) for record in records], position)

    def wait(self, after: list[int], timeout: float) -> bool:
        return bool(self._poll(after, 1, timeout).events)  # the next read seeks back

    def head(self) -> list[int]:
        with self._lock:
            ends = self._consumer.end_offsets(self._places)
        return [ends[place] for place in self._places]

    def after_event(self, before: list[int], event: TopicEvent) -> list[int]:
        return [*before[: event.record.partition], event.record.offset + 1, *before[event.record.partition + 1 :]]

    def between(self, after: list[int], until: list[int]) -> int:
        return sum(max(0, end - begin) for begin, end in zip(after, until, strict=True))

    def checked(self, given: Any) -> list[int]:
        if not isinstance(given, (list, tuple)) or len(given) != len(self._places):
            raise InvalidTypeError(f"position is {given!r}; the next offset of each of {len(self._places)} partitions")
        if not all(type(offset) is int and offset >= 0 for offset in given):
            raise InvalidArgumentError(f"position is {given!r}; allowed are offsets from 0")
        return list(given)

    def to_text(self, position: list[int]) -> str:
        return json.dumps(position)

    def from_text(self, text: str) -> list[int]:
        found = [int(offset) for offset in json.loads(text)]
        return found + [0] * (len(self._places) - len(found))  # partitions were added since

    def close(self) -> None:
        with self._lock:
            self._consumer.close()


def feed_of(source: Any) -> Feed:
    """The feed of an event store or a bus, or an error."""
    if isinstance(source, EventStore):
        return StoreFeed(source)
    if isinstance(source, EventBus):
        return TopicFeed(source.broker, source.topic)
    raise InvalidTypeError(f"source is {source!r}; an EventStore or an EventBus is needed")
