"""Everything that is published to a broker's topics and stores, for tests to look at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from penstock import Broker, TopicPartition
from penstock.errors import InvalidTypeError
from penstock.events import Envelope, Event, InvalidEventError

E = TypeVar("E", bound=Event)


class CapturedEvents:
    """The events that were stored in a broker since this was made (or `clear`ed): in all topics, or in `topic`.

    Iterating, indexing and comparing with a list work on the typed events in the order of their topics' offsets; topics
    in alphabetical order. What is no event is left out. An event counts each time it was stored.
    Raises `InvalidTypeError` (no broker).
    """

    def __init__(self, broker: Broker, topic: str | None = None) -> None:
        if not isinstance(broker, Broker):
            raise InvalidTypeError(f"broker is {broker!r}; an open penstock.Broker is needed")
        self._broker = broker
        self._topic = topic
        self._begins: dict[TopicPartition, int] = {}
        self.clear()

    def clear(self) -> None:
        """Forget what was stored so far."""
        with self._broker.consumer() as consumer:
            self._begins = consumer.end_offsets(self._places())

    def _places(self) -> list[TopicPartition]:
        names = self._broker.topics() if self._topic is None else [self._topic]
        known = set(self._broker.topics())
        return [
            TopicPartition(name, number)
            for name in names
            if name in known and name not in self._broker.queues()
            for number in range(self._broker.topic(name).partitions)
        ]

    @property
    def envelopes(self) -> list[Envelope]:
        """The envelopes."""
        found = []
        for place in self._places():
            with self._broker.consumer(isolation_level="read_committed") as consumer:
                consumer.assign([place])
                consumer.seek(place, self._begins.get(place, 0))
                while records := consumer.poll(max_records=10_000, timeout=0):
                    for record in records:
                        try:
                            found.append(Envelope.from_json(record.value or b""))
                        except InvalidEventError:
                            continue  # a saga's journal, or anything else
        return found

    @property
    def events(self) -> list[Event]:
        """The typed events."""
        return [envelope.event() for envelope in self.envelopes]

    def of(self, event_class: type[E]) -> list[E]:
        """The events of a class."""
        return [event for event in self.events if isinstance(event, event_class)]

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.envelopes)

    def __getitem__(self, index: int) -> Event:
        return self.events[index]

    def __contains__(self, event: object) -> bool:
        return event in self.events

    def __eq__(self, other: object) -> bool:
        return self.events == (other.events if isinstance(other, CapturedEvents) else other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<CapturedEvents {self.events!r}>"
