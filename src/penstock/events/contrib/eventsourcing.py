"""Penstock as a persistence module of the `eventsourcing` package (version 9.4 or later).

    PERSISTENCE_MODULE=penstock.events.contrib.eventsourcing
    PENSTOCK_PATH=/var/lib/shop        the data directory; needed
    PENSTOCK_STORE=shop                first part of the stores' names; default: the application's name
    PENSTOCK_FSYNC=interval            never, interval (default) or always

An application's events are one event store, `<name>-events`, its snapshots another. An originator is a stream; the
`eventsourcing` topic is the event's type; the notification id is the position, so that ids grow and may leave gaps.
What a process application has tracked is a stream of the same store, appended together with the events (one commit).
Events of several originators that are saved at once get their ids originator by originator.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any
from uuid import UUID

import msgspec
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    DatabaseError,
    InfrastructureFactory,
    IntegrityError,
    InterfaceError,
    Notification,
    OperationalError,
    ProcessRecorder,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
)
from eventsourcing.utils import Environment, EnvType, resolve_topic

import penstock
from penstock.errors import ClosedError, ConcurrencyError, DiskFullError, PenstockError
from penstock.events.envelope import Envelope
from penstock.events.event import Event
from penstock.events.store import NO_STREAM, EventStore, Query, RecordedEvent
from penstock.events.subscription import Subscription as Follower

_TRACKING = "tracking"
_REMEMBERED_MAX = 10_000


class StoredState(Event, type="eventsourcing.StoredState"):
    """A stored event as it lies in Penstock (under its own topic as type)."""

    version: int
    """The originator version."""
    top: int
    """The greatest one so far in the stream."""
    shift: int | None
    """Originator version minus the stream's own, as long as they grow together; else None."""
    sorted: bool
    """Whether all so far came in the order of their versions."""
    state: bytes


class Tracked(Event, type="eventsourcing.Tracking"):
    """How far the notifications of an application were processed."""

    notification_id: int


class _Stored(msgspec.Struct):
    data: StoredState


class _Last(msgspec.Struct, frozen=True):
    """The end of a stream."""

    version: int
    top: int
    shift: int | None
    sorted: bool


_NOTHING = _Last(-1, -(1 << 62), None, True)
_decode = msgspec.json.Decoder(_Stored).decode


class PenstockRecorder:
    """What the recorders share: a store, and the ends of its streams that were seen lately."""

    def __init__(self, store: EventStore) -> None:
        self.store = store
        self._lasts: OrderedDict[str, _Last] = OrderedDict()
        self._lock = threading.Lock()

    def _last(self, stream: str, known: bool = True) -> _Last:
        if known and (found := self._lasts.get(stream)) is not None:
            return found
        found = _NOTHING
        for recorded in self.store.read(stream, backwards=True, limit=1):
            data = _decode(recorded.value).data
            found = _Last(recorded.version, data.top, data.shift, data.sorted)
        return found

    def _remember(self, lasts: dict[str, _Last]) -> None:
        with self._lock:
            self._lasts.update(lasts)
            while len(self._lasts) > _REMEMBERED_MAX:
                self._lasts.popitem(last=False)

    def _max_tracking_id(self, application_name: str) -> tuple[int, int | None]:
        """(version of the stream, the last id tracked)"""
        for recorded in self.store.read(_tracking_stream(application_name), backwards=True, limit=1):
            return recorded.version, int(recorded.data["notification_id"])
        return -1, None

    def _tracking_part(self, tracking: Tracking) -> tuple[str, tuple[list[Event | Envelope], Any]]:
        version, last = self._max_tracking_id(tracking.application_name)
        if last is not None and tracking.notification_id <= last:
            raise IntegrityError(
                f"{tracking.application_name!r} was tracked up to notification {last}; "
                f"{tracking.notification_id} is not after it"
            )
        events: list[Event | Envelope] = [Tracked(tracking.notification_id)]
        return _tracking_stream(tracking.application_name), (events, _expected(version))

    def _append(self, stored_events: Sequence[StoredEvent], tracking: Tracking | None) -> list[int]:
        """Store all of it, or nothing; the positions."""
        streams: dict[str, list[StoredEvent]] = {}
        for stored in stored_events:
            streams.setdefault(_stream(stored.originator_id), []).append(stored)
        known = True
        while True:
            appends: dict[str, tuple[list[Event | Envelope], Any]] = {}
            lasts: dict[str, _Last] = {}
            if tracking is not None:
                stream, part = self._tracking_part(tracking)
                appends[stream] = part
            for stream, some in streams.items():
                before = self._last(stream, known)
                envelopes, lasts[stream] = self._envelopes(stream, some, before)
                appends[stream] = (envelopes, _expected(before.version))
            if not appends:
                return []
            try:
                stored_at = self.store.append_many(appends)
            except ConcurrencyError:  # somebody was faster; whether it matters is seen by what is there now
                known = False
                continue
            self._remember(lasts)
            ends = {stream: stored_at[stream].position - len(some) for stream, some in streams.items()}
            return [_count_up(ends, _stream(stored.originator_id)) for stored in stored_events]

    def _envelopes(self, stream: str, some: list[StoredEvent], last: _Last) -> tuple[list[Event | Envelope], _Last]:
        """The events of one originator as envelopes, and the stream's end after them."""
        self._check_new(stream, [stored.originator_version for stored in some], last)
        envelopes: list[Event | Envelope] = []
        for stored in some:
            version = last.version + 1
            number = stored.originator_version
            shift = number - version
            last = _Last(
                version,
                max(last.top, number),
                shift if version == 0 or last.shift == shift else None,
                last.sorted and number > last.top,
            )
            event = StoredState(number, last.top, last.shift, last.sorted, stored.state)
            made = Envelope.wrap(event, self.store.source, clock=self.store.broker.clock)
            envelopes.append(msgspec.structs.replace(made, type=stored.topic))
        return envelopes, last

    def _check_new(self, stream: str, numbers: list[int], last: _Last) -> None:
        if len(set(numbers)) < len(numbers):
            raise IntegrityError(f"{stream} has a version twice: {numbers}")
        if min(numbers) <= last.top:
            taken = {_decode(recorded.value).data.version for recorded in self.store.read(stream)}
            if last.shift is not None or not taken.isdisjoint(numbers):
                raise IntegrityError(f"{stream} has versions up to {last.top}; {min(numbers)} cannot be added")


class PenstockAggregateRecorder(PenstockRecorder, AggregateRecorder):
    """Events by originator."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Store events, all or none. Raises `IntegrityError` when a version is there already."""
        with translated():
            self._append(stored_events, None)
        return None

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """The events of an originator in the order of their versions (`desc`: the greatest first)."""
        with translated():
            found = self._select(_stream(originator_id), gt, lte, desc)
            return [StoredEvent(originator_id, data.version, topic, data.state) for topic, data in islice(found, limit)]

    def _select(self, stream: str, gt: int | None, lte: int | None, desc: bool) -> Iterator[tuple[str, StoredState]]:
        last = self._last(stream, known=False) if desc or gt is not None or lte is not None else None
        first, until = 0, None
        if last is not None and last.shift is not None:
            first = 0 if gt is None else max(0, gt + 1 - last.shift)
            until = None if lte is None else lte - last.shift
            if until is not None and until < 0:
                return iter(())
        found = self.store.read(stream, from_version=first, until=until, backwards=desc)
        rows: Iterator[tuple[str, StoredState]] = ((recorded.type, _decode(recorded.value).data) for recorded in found)
        if last is None or not last.sorted:
            rows = iter(sorted(rows, key=lambda row: row[1].version, reverse=desc))
        return (row for row in rows if (gt is None or row[1].version > gt) and (lte is None or row[1].version <= lte))


class PenstockApplicationRecorder(PenstockAggregateRecorder, ApplicationRecorder):
    """Events by originator, and all of them in the order in which they were stored."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Store events, all or none; their notification ids. Raises `IntegrityError`."""
        with translated():
            return self._append(stored_events, None)

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Up to `limit` notifications with ids from `start` to `stop`, of some topics."""
        after = 0 if start is None else max(0, start - 1 if inclusive_of_start else start)
        with translated():
            found = self.store.query(Query(types=topics), after=after) if topics else self.store.read_all(after=after)
            if stop is not None:
                found = _up_to(found, stop)
            return [_notice(event) for event in islice(filter(_is_stored, found), limit)]

    def max_notification_id(self) -> int | None:
        """The id of what was stored last; None: there is nothing."""
        with translated():
            last = next(filter(_is_stored, self.store.read_all(backwards=True)), None)
            return None if last is None else last.position

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        """An iterator of the notifications behind `gt`, of some topics, for ever."""
        return PenstockSubscription(self, gt, topics)


class PenstockSubscription(Subscription[ApplicationRecorder]):
    """Woken by whoever stores events, in any process."""

    def __init__(
        self, recorder: PenstockApplicationRecorder, gt: int | None = None, topics: Sequence[str] = ()
    ) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._follower: Follower = recorder.store.subscribe(after=gt or 0, types=list(topics) or None)

    def stop(self) -> None:
        """End the iteration; may be called from another thread."""
        super().stop()
        self._follower.close()

    def __next__(self) -> Notification:
        with translated():
            for event in self._follower:
                if _is_stored(event):
                    return _notice(event)
        raise StopIteration


class PenstockTrackingRecorder(PenstockRecorder, TrackingRecorder):
    """How far the notifications of other applications were processed."""

    def insert_tracking(self, tracking: Tracking) -> None:
        """Note it. Raises `IntegrityError` when it is not after the last one."""
        with translated():
            self._append([], tracking)

    def max_tracking_id(self, application_name: str) -> int | None:
        """The greatest notification id tracked of an application."""
        with translated():
            return self._max_tracking_id(application_name)[1]


class PenstockProcessRecorder(PenstockTrackingRecorder, PenstockApplicationRecorder, ProcessRecorder):
    """Events, and what they were made of, in one commit."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Store events and `tracking`, all or none; the events' notification ids. Raises `IntegrityError`."""
        with translated():
            return self._append(stored_events, kwargs.get("tracking"))


class PenstockFactory(InfrastructureFactory[PenstockTrackingRecorder]):
    """Makes the recorders of an application; owns the broker. See the module for its environment."""

    PENSTOCK_PATH = "PENSTOCK_PATH"
    PENSTOCK_STORE = "PENSTOCK_STORE"
    PENSTOCK_FSYNC = "PENSTOCK_FSYNC"

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        path = self.env.get(self.PENSTOCK_PATH)
        if not path:
            keys = ", ".join(self.env.create_keys(self.PENSTOCK_PATH))
            raise OSError(f"no data directory is given: none of the variables {keys} is set")
        self.name = self.env.get(self.PENSTOCK_STORE) or self.env.name or "application"
        self.broker = penstock.open(path, fsync=self.env.get(self.PENSTOCK_FSYNC) or "interval")
        self._stores: dict[str, EventStore] = {}

    def store(self, purpose: str = "events") -> EventStore:
        """The store of a purpose."""
        if purpose not in self._stores:
            self._stores[purpose] = EventStore(self.broker, f"{self.name}-{purpose}")
        return self._stores[purpose]

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """A recorder of events, or of snapshots."""
        return PenstockAggregateRecorder(self.store(purpose))

    def application_recorder(self) -> ApplicationRecorder:
        """A recorder of an application's events (its class: `APPLICATION_RECORDER_TOPIC`)."""
        chosen: type[PenstockApplicationRecorder] = self._class(
            self.APPLICATION_RECORDER_TOPIC, PenstockApplicationRecorder
        )
        return chosen(self.store())

    def tracking_recorder(
        self, tracking_recorder_class: type[PenstockTrackingRecorder] | None = None
    ) -> PenstockTrackingRecorder:
        """A recorder of tracking objects (its class: given, or `TRACKING_RECORDER_TOPIC`)."""
        chosen = tracking_recorder_class or self._class(self.TRACKING_RECORDER_TOPIC, PenstockTrackingRecorder)
        return chosen(self.store())

    def process_recorder(self) -> ProcessRecorder:
        """A recorder of events and tracking objects (its class: `PROCESS_RECORDER_TOPIC`)."""
        chosen: type[PenstockProcessRecorder] = self._class(self.PROCESS_RECORDER_TOPIC, PenstockProcessRecorder)
        return chosen(self.store())

    def _class(self, variable: str, default: Any) -> Any:
        topic = self.env.get(variable)
        return resolve_topic(topic) if topic else default

    def close(self) -> None:
        """Close the broker."""
        self.broker.close()


Factory = PenstockFactory


@contextmanager
def translated() -> Iterator[None]:
    """Penstock's errors as those of the package."""
    try:
        yield
    except DiskFullError as error:
        raise OperationalError(str(error)) from error
    except ClosedError as error:
        raise InterfaceError(str(error)) from error
    except PenstockError as error:
        raise DatabaseError(str(error)) from error


def _stream(originator_id: UUID | str) -> str:
    return f"uuid-{originator_id.hex}" if isinstance(originator_id, UUID) else f"text-{originator_id}"


def _tracking_stream(application_name: str) -> str:
    return f"{_TRACKING}-{application_name}"


def _expected(version: int) -> Any:
    return NO_STREAM if version < 0 else version


def _is_stored(event: RecordedEvent) -> bool:
    return not event.stream.startswith(_TRACKING)


def _notice(event: RecordedEvent) -> Notification:
    kind, _, name = event.stream.partition("-")
    data = _decode(event.value).data
    originator_id = UUID(name) if kind == "uuid" else name
    return Notification(originator_id, data.version, event.type, data.state, event.position)


def _up_to(found: Iterator[RecordedEvent], stop: int) -> Iterator[RecordedEvent]:
    for event in found:
        if event.position > stop:
            return
        yield event


def _count_up(ends: dict[str, int], stream: str) -> int:
    ends[stream] += 1
    return ends[stream]
