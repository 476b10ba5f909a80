"""The timeline: everything that came of one beginning, from buses, event stores, sagas and dead letters, in order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from penstock import Broker, Record, TopicPartition
from penstock.errors import InvalidTypeError
from penstock.events.checks import checked_broker, checked_list, checked_text
from penstock.events.envelope import Envelope
from penstock.events.errors import UNREADABLE, InvalidEventError
from penstock.events.sagas.entry import COMMANDS, TOLD, Entry
from penstock.events.sagas.entry import decode as decode_entry

_MOST = 10_000
_DEAD_GROUP = "dead-letter-group"
_INDENT_MOST = 40
_PLAIN = re.compile(r"[A-Za-z0-9_.:@+=-]+")  # of this all JSON encoders write the same bytes
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One thing that happened."""

    at: datetime
    """When."""
    kind: str
    """"event", "saga" (a step, wait, signal or end) or "dead letter"."""
    what: str
    """The event's type; of a saga: what it did; of a dead letter: the event's type and the group that gave it up."""
    message_id: str
    """The event's message id; of a saga: its id."""
    causation_id: str | None
    """What it was caused by, as far as that is known."""
    places: tuple[str, ...]
    """Where it is stored: `topic-partition@offset`, each place of it."""
    envelope: Envelope | None
    """The event; None of a saga."""


class Timeline(list[TimelineEntry]):
    """The entries in order of time; what was caused stands after its cause. `str()` shows them as a tree."""

    def roots(self) -> list[TimelineEntry]:
        """The entries whose cause is not among them."""
        known = {entry.message_id for entry in self if entry.kind == "event"}
        return [entry for entry in self if entry.causation_id not in known]

    def effects(self, cause: TimelineEntry) -> list[TimelineEntry]:
        """The entries that an event caused directly."""
        return [entry for entry in self if cause.kind == "event" and entry.causation_id == cause.message_id]

    def tree(self) -> str:
        """A line for each entry, below its cause and to its right."""
        effects: dict[str | None, list[TimelineEntry]] = {}
        for entry in self:
            effects.setdefault(entry.causation_id, []).append(entry)
        lines: dict[int, str] = {}
        for root in (*self.roots(), *self):  # events that cause each other have no root
            pending = [(root, 0)]
            while pending:
                entry, depth = pending.pop()
                if id(entry) in lines:
                    continue
                where = ", ".join(entry.places)
                indent = "  " * min(depth, _INDENT_MOST)
                lines[id(entry)] = f"{entry.at:%H:%M:%S.%f} {indent}{entry.what}  [{entry.kind}, {where}]"
                if entry.kind == "event":
                    pending += [(effect, depth + 1) for effect in reversed(effects.get(entry.message_id, []))]
        return "\n".join(lines.values())

    def __str__(self) -> str:
        return self.tree()


def timeline(
    broker: Broker,
    correlation_id: str,
    topics: Iterable[str] | None = None,
    since: datetime | timedelta | None = None,
) -> Timeline:
    """Everything with a correlation id that is stored in the topics (default: all of the broker), in order.

    Events of buses and stores (an event with one message id is one entry, wherever it was stored), what sagas of that
    correlation did, and dead letters. Reads the topics from their beginning, or from `since` (a point in time, or so
    long ago). Raises `UnknownTopicError`, `InvalidTypeError`.
    """
    checked_broker(broker)
    search = _Search(checked_text("correlation_id", correlation_id))
    for topic in broker.topics() if topics is None else checked_list("topics", topics):
        for record in _records(broker, topic, since):
            search.look_at(record)
    return search.found()


def _records(broker: Broker, topic: str, since: datetime | timedelta | None) -> Iterator[Record]:
    found = broker.topic(topic)
    places = [TopicPartition(found.name, number) for number in range(found.partitions)]
    with broker.consumer(isolation_level="read_committed") as consumer:
        consumer.assign(places)
        for place in places:
            if since is None:
                consumer.seek_to_beginning(place)
            else:
                consumer.seek_to_timestamp(place, _milliseconds(broker, since))
        while records := consumer.poll(max_records=_MOST, timeout=0):
            yield from records


def _milliseconds(broker: Broker, since: datetime | timedelta) -> int:
    if isinstance(since, timedelta):
        return max(0, broker.clock.time_ms() - round(since.total_seconds() * 1000))
    if not isinstance(since, datetime) or since.tzinfo is None:
        raise InvalidTypeError(f"since is {since!r}; a datetime with a time zone, or a timedelta, is needed")
    return max(0, round(since.timestamp() * 1000))


class _Search:
    def __init__(self, correlation_id: str) -> None:
        self._wanted = correlation_id
        own = correlation_id.encode()
        self._needle = own if _PLAIN.fullmatch(correlation_id) else b""  # which is in every record
        self._sagas: set[bytes] = {own}  # keys of sagas with this correlation; its own id by default
        self._entries: dict[str, TimelineEntry] = {}

    def look_at(self, record: Record) -> None:
        value = record.value or b""
        if self._needle in value:
            try:
                envelope = Envelope.from_json(value)
            except InvalidEventError:
                self._look_at_saga(record, value)
            else:
                if envelope.correlation_id == self._wanted:
                    self._add_event(record, envelope)
        elif record.key in self._sagas:
            self._look_at_saga(record, value)

    def _add_event(self, record: Record, envelope: Envelope) -> None:
        group = next((text for name, text in record.headers if name == _DEAD_GROUP), None)
        place = f"{record.topic}-{record.partition}@{record.offset}"
        if group is not None:
            what = f"{envelope.type} given up by {group.decode()}"
            at = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
            identity = envelope.message_id
            self._put(place, TimelineEntry(at, "dead letter", what, identity, identity, (place,), envelope))
            return
        known = self._entries.get(envelope.message_id)
        if known is not None:
            places = (*known.places, place)
            self._entries[envelope.message_id] = TimelineEntry(
                known.at, known.kind, known.what, known.message_id, known.causation_id, places, known.envelope
            )
            return
        entry = TimelineEntry(
            envelope.timestamp, "event", envelope.type, envelope.message_id, envelope.causation_id, (place,), envelope
        )
        self._put(envelope.message_id, entry)

    def _look_at_saga(self, record: Record, value: bytes) -> None:
        try:
            entry = decode_entry(value)
        except UNREADABLE:
            return  # a record of something else that contains the id
        if entry.kind not in TOLD or record.key is None:
            return
        if entry.kind == "start" and entry.correlation == self._wanted:
            self._sagas.add(record.key)
        if record.key not in self._sagas or (entry.kind == "start" and entry.correlation not in ("", self._wanted)):
            return
        place = f"{record.topic}-{record.partition}@{record.offset}"
        saga_id = record.key.decode()
        at = datetime.fromtimestamp((entry.at or record.timestamp_ms) / 1000, UTC)
        self._put(place, TimelineEntry(at, "saga", f"{saga_id}: {_told(entry)}", saga_id, None, (place,), None))

    def _put(self, name: str, entry: TimelineEntry) -> None:
        self._entries.setdefault(name, entry)

    def found(self) -> Timeline:
        """The entries, in order of time; an effect never before its cause, whatever their clocks said."""
        causes = {entry.message_id: entry for entry in self._entries.values() if entry.kind == "event"}
        places: dict[str, tuple[datetime, int]] = {}  # of causes: time, and how many causes came before
        begin = (_LONG_AGO, -1)
        for entry in causes.values():
            path: dict[str, TimelineEntry] = {}
            cause: TimelineEntry | None = entry
            while cause is not None and cause.message_id not in path and cause.message_id not in places:
                path[cause.message_id] = cause
                cause = causes.get(cause.causation_id or "")
            time, level = begin if cause is None else places.get(cause.message_id, begin)
            for effect in reversed(path.values()):
                time, level = places[effect.message_id] = max(time, effect.at), level + 1

        def place_of(entry: TimelineEntry) -> tuple[datetime, int]:
            if causes.get(entry.message_id) is entry:
                return places[entry.message_id]
            time, level = places.get(entry.causation_id or "", begin)
            return max(time, entry.at), level + 1

        return Timeline(sorted(self._entries.values(), key=place_of))


def _told(entry: Entry) -> str:
    words = [entry.kind, entry.name, entry.status, entry.error]
    command = "asked to " if entry.kind in COMMANDS - {"start"} else ""
    return command + " ".join(word for word in words if word)
