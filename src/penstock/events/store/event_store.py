"""The event store: streams of events in one log."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from penstock._native.records import Record
from penstock.errors import ClosedError, InvalidArgumentError, InvalidTypeError
from penstock.events.aggregate_store import AggregateStore
from penstock.events.envelope import Envelope
from penstock.events.erasure import Erasure, Forgetting
from penstock.events.errors import StreamDeletedError, WrongVersionError
from penstock.events.event import Event
from penstock.events.snapshots import SnapshotFile
from penstock.events.store import record_format as rf
from penstock.events.store.append_result import AppendResult
from penstock.events.store.expected import ANY, Expected, check_expected, fits, wrong_version
from penstock.events.store.index import Index
from penstock.events.store.query import Query, check_tags
from penstock.events.store.recorded import RecordedEvent
from penstock.events.store.store_log import StoreLog
from penstock.events.store.stream_state import NOTHING, Stream, StreamState
from penstock.events.subscribing import Subscribing
from penstock.events.subscription_file import SubscriptionFile
from penstock.events.unit_of_work import current_unit

if TYPE_CHECKING:
    from penstock.streams.broker import Broker

Events = Event | Envelope | Sequence[Event | Envelope]
TAGGED = "$tagged"
"""The stream of events that were appended without one."""


class _Part(NamedTuple):
    stream: str
    envelopes: list[Envelope]
    tags: list[list[str]]
    expected: Expected
    given: bool  # the caller made the envelopes: the same ids may come again


class EventStore(AggregateStore, Subscribing, Forgetting):
    """`EventStore(broker, "shop")`: the store of that name, made when there is none.

    Any number of stores a broker, of objects a store, of threads and processes. `source`: the source in the envelopes
    of events (default: the store's name). Raises `InvalidNameError`, `InvalidConfigError` (the topic of that name is
    not a store's).
    """

    def __init__(self, broker: Broker, name: str, *, source: str | None = None) -> None:
        self.name = name
        self.broker = broker
        self.source = name if source is None else source
        self._log = StoreLog(broker, name)
        self._lock = threading.RLock()
        self._index = Index(self._log)
        self._streams: dict[str, Stream] = {}
        self._erasure = Erasure(broker.path / f"{name}.keys.sqlite3")
        self._snapshot_file = SnapshotFile(broker.path / f"{name}.snapshots.sqlite3", self._erasure)
        self._replays = {}
        self._followers = weakref.WeakSet()
        self._subscription_file = SubscriptionFile(broker.path / f"{name}.subscriptions.sqlite3")
        self._closed = False
        broker._register(self)

    # --- appending -------------------------------------------------------------------------------------------------

    def append(
        self,
        stream: str,
        events: Events,
        expected_version: Expected = ANY,
        metadata: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
    ) -> AppendResult:
        """Append one event or several to a stream, all or none; they are stored when this returns.

        `events`: objects of Event classes, or Envelopes. `expected_version`: `ANY` (default), `NO_STREAM`,
        `STREAM_EXISTS` or the version of the stream's last event. `metadata`: for the envelopes that are made here.
        `tags`: for all of them, beside the attribute `tags` of an event.
        Envelopes that were stored before, with the same expected version, are not stored again: the first result.
        Raises `WrongVersionError` (a `ConcurrencyError`), `StreamDeletedError`, `InvalidTypeError`,
        `InvalidArgumentError`, `DiskFullError`; nothing was stored then.
        """
        return self._append([self._part(stream, events, expected_version, metadata, tags)])[0]

    def append_many(
        self,
        appends: Mapping[str, tuple[Events, Expected]],
        metadata: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
    ) -> dict[str, AppendResult]:
        """Append to several streams, all or none: `{stream: (events, expected_version)}`; as `append`."""
        if not isinstance(appends, Mapping) or not appends:
            raise InvalidArgumentError(
                f"appends is {appends!r}; a dict of stream to (events, expected_version) is needed"
            )
        tags = check_tags(tags)
        parts = [self._part(stream, *pair, metadata, tags) for stream, pair in appends.items()]
        return dict(zip(appends, self._append(parts), strict=True))

    def append_if(
        self,
        events: Events,
        *,
        tags: Iterable[str] = (),
        unless: Query,
        after: int = 0,
        stream: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AppendResult:
        """Append unless an event that matches `unless` came after position `after` (a dynamic consistency boundary).

        `after`: the position up to which the caller's decision knows the events (`store.position` before it read them,
        or the position of the last one). `stream`: which stream they become part of (default: one that all such
        events share). Raises `WrongVersionError` with `position` of the event that came, and what `append` raises.
        """
        if not isinstance(unless, Query):
            raise InvalidTypeError(f"unless is {unless!r}; an events.Query is needed")
        checked = _checked_position("after", after)
        part = self._part(TAGGED if stream is None else stream, events, ANY, metadata, tags)
        return self._append([part], unless, checked)[0]

    def _part(
        self, stream: str, events: Events, expected: Expected, metadata: Mapping[str, Any] | None, tags: Iterable[str]
    ) -> _Part:
        _check_stream(stream)
        check_expected(expected)
        items = [events] if isinstance(events, (Event, Envelope)) else list(events)
        if not items:
            raise InvalidArgumentError("events is empty; 1 or more are needed")
        common = check_tags(tags)
        envelopes = [
            item
            if isinstance(item, Envelope)
            else Envelope.wrap(item, self.source, metadata=dict(metadata or {}), clock=self.broker.clock)
            for item in items
        ]
        envelopes = self._erasure.seal(envelopes, self.broker.clock.time_ms())
        all_tags = [list(dict.fromkeys([*common, *check_tags(getattr(item, "tags", ()))])) for item in items]
        return _Part(stream, envelopes, all_tags, expected, any(isinstance(item, Envelope) for item in items))

    def _append(self, parts: list[_Part], unless: Query | None = None, after: int = 0) -> list[AppendResult]:
        unit = current_unit(self)
        if unit is not None:  # of a command: stored at its end, all or none
            with self._lock:
                self._catch_up()
                return unit.take(parts, {part.stream: self._stream(part.stream) for part in parts}, unless, after)
        with self._lock:
            while True:
                end = self._catch_up()
                if unless is not None:
                    self._check_boundary(unless, after)
                earlier = self._check_versions(parts)
                if earlier is not None:
                    return earlier
                stored = self._store(parts, end)
                if stored is not None:
                    return stored

    def _check_versions(self, parts: list[_Part]) -> list[AppendResult] | None:
        """Raise when a stream is not as expected; the first results when all was stored before."""
        earlier: list[AppendResult] = []
        wrong = None
        for part in parts:
            known = self._stream(part.stream)
            fit = fits(known, part.expected)
            found = self._stored_before(part, known, fit) if part.given else None
            if found is not None:
                earlier.append(found)
            elif not fit and wrong is None:
                wrong = wrong_version(known, part.expected)
        if len(earlier) == len(parts):
            return earlier
        if wrong is not None:
            raise wrong
        return None

    def _stored_before(self, part: _Part, known: Stream, fit: bool) -> AppendResult | None:
        count = len(part.envelopes)
        if type(part.expected) is int:
            first = part.expected + 1
        elif not fit and part.expected is not ANY:
            first = 0
        else:
            first = max(0, known.last_version + 1 - 2 * count - 64)
        if known.last_version + 1 - first < count:
            return None
        wanted = [envelope.message_id for envelope in part.envelopes]
        found = list(self._events(part.stream, first, known.last_version))
        for start in range(len(found) - count + 1):
            some = found[start : start + count]
            if [event.message_id for event in some] == wanted:
                return AppendResult(some[-1].version, some[-1].position)
            if type(part.expected) is int:
                return None
        return None

    def _check_boundary(self, unless: Query, after: int) -> None:
        for event in self._matching(unless, after, self._index.end):
            raise WrongVersionError(
                f"an event that matches {unless!r} came after position {after}: {event!r}",
                actual_version=event.version,
                position=event.position,
            )

    def _store(self, parts: list[_Part], end: int) -> list[AppendResult] | None:
        values, keys, headers, results, changed = [], [], [], [], []
        for part in parts:
            known = self._stream(part.stream)
            version = known.last_version
            key = part.stream.encode()
            for envelope, tags in zip(part.envelopes, part.tags, strict=True):
                version += 1
                values.append(envelope.to_json())
                keys.append(key)
                headers.append(rf.event_headers(version, envelope.type, envelope.version, tags))
            results.append(AppendResult(version, end + len(values)))
            changed.append(Stream(part.stream, version, known.state))
        offset = self._log.append(values, keys, headers, self._log.clock.time_ms(), end)
        if offset is None:
            return None
        self._catch_up()
        for stream in changed:
            self._streams[stream.name] = stream
        return results

    # --- reading ---------------------------------------------------------------------------------------------------

    def read(
        self,
        stream: str,
        from_version: int = 0,
        until: int | datetime | None = None,
        backwards: bool = False,
        limit: int | None = None,
    ) -> Iterator[RecordedEvent]:
        """The events of a stream from `from_version` to `until` (a version, or a time; included), as they are now.

        `backwards`: the newest first (from `until` down to `from_version`). `limit`: so many. What truncation, limits
        and deletion took is left out; a stream that does not exist has no events. Lazy. Raises `StreamDeletedError`,
        `InvalidTypeError`, `InvalidArgumentError`.
        """
        _check_stream(stream)
        first = _checked_int("from_version", from_version, 0)
        left = _checked_limit(limit)
        last = None if until is None or isinstance(until, datetime) else _checked_int("until", until, 0)
        at = _checked_time(until) if isinstance(until, datetime) else None
        return _cut(map(self._recorded, self._records_of(stream, first, last)), at, backwards, left)

    def _records_of(self, stream: str, first: int, last: int | None = None) -> Iterator[Record]:
        """The records of a stream's events that may be read, from version `first` to `last`, as they are now."""
        with self._lock:
            self._catch_up()
            known = self._existing(stream)
        last = known.last_version if last is None else min(last, known.last_version)
        found = self._records(stream, max(first, known.first_version), last)
        if known.state.max_age_ms is None:
            return found
        oldest = self._log.clock.time_ms() - known.state.max_age_ms
        return (record for record in found if record.timestamp_ms >= oldest)

    def _records(self, stream: str, first: int, last: int) -> Iterator[Record]:
        rows = self._index.rows(rf.stream_term(stream))
        for number, offset in list(rows):
            if first <= number <= last:
                yield from self._log.read(offset, offset + 1)

    def _events(self, stream: str, first: int, last: int) -> Iterator[RecordedEvent]:
        return map(self._recorded, self._records(stream, first, last))

    def _recorded(self, record: Record) -> RecordedEvent:
        return RecordedEvent(record, self._erasure)

    def read_all(
        self, after: int = 0, limit: int | None = None, backwards: bool = False, until: int | datetime | None = None
    ) -> Iterator[RecordedEvent]:
        """Every event stored after position `after`, up to `until` (a position, or a time; included), in the order in
        which they were stored, as they are now.

        Events that their streams do not show any more (truncated, deleted) are part of it. `backwards`: the newest
        first. `limit`: so many. Lazy.
        """
        start = _checked_position("after", after)
        left = _checked_limit(limit)
        end = self._log.end
        at = None
        if isinstance(until, datetime):
            at = _checked_time(until)
        elif until is not None:
            end = min(end, _checked_position("until", until))
        return _cut(self._all(start, end), at, backwards, left)

    def _all(self, start: int, end: int) -> Iterator[RecordedEvent]:
        for record in self._log.read(start, end):
            if rf.is_event(record):
                yield self._recorded(record)

    def query(self, query: Query, after: int = 0, limit: int | None = None) -> Iterator[RecordedEvent]:
        """The events that match, stored after position `after`, in order. Lazy; as `read_all`."""
        if not isinstance(query, Query):
            raise InvalidTypeError(f"query is {query!r}; an events.Query is needed")
        start = _checked_position("after", after)
        left = _checked_limit(limit)
        with self._lock:
            end = self._catch_up()
        return _cut(self._matching(query, start, end), None, False, left)

    def _matching(self, query: Query, start: int, end: int) -> Iterator[RecordedEvent]:
        offsets: set[int] = set()
        for types, tags in query.items:
            terms = [rf.tag_term(tag) for tag in sorted(tags)[:1]] or [rf.type_term(name) for name in types]
            offsets.update(offset for term in terms for _, offset in self._index.rows(term) if start <= offset < end)
        for offset in sorted(offsets):
            for record in self._log.read(offset, offset + 1):
                event = self._recorded(record)
                if query.matches(event.type, event.tags):
                    yield event

    def read_category(self, category: str, after: int = 0, limit: int | None = None) -> Iterator[RecordedEvent]:
        """The events of all streams whose name before the first "-" is `category`, in the order in which they were
        stored. Lazy; as `read_all`."""
        _check_stream(category)
        start = _checked_position("after", after)
        left = _checked_limit(limit)
        with self._lock:
            self._catch_up()
            rows = list(self._index.rows(rf.category_term(category)))
        found = (self._recorded(r) for _, offset in rows if offset >= start for r in self._log.read(offset, offset + 1))
        return _cut(found, None, False, left)

    # --- streams ---------------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Global position of what was stored last; 0 when there is nothing."""
        return self._log.end

    def version(self, stream: str) -> int:
        """Version of a stream's last event; -1 when the stream does not exist. Raises `StreamDeletedError`."""
        _check_stream(stream)
        with self._lock:
            self._catch_up()
            return self._existing(stream).version

    def streams(self, category: str | None = None) -> Iterator[str]:
        """The names of the streams (of a category) that exist, in the order in which they began. Reads the log."""
        found = self.read_all() if category is None else self.read_category(category)
        for event in found:
            if event.version == 0:
                with self._lock:
                    self._catch_up()
                    known = self._stream(event.stream)
                if known.exists and not known.tombstoned:
                    yield event.stream

    def truncate(self, stream: str, before_version: int) -> None:
        """Events below `before_version` are not read any more."""
        before = _checked_int("before_version", before_version, 0)
        self._change(stream, lambda known: {"truncate_before": before})

    def set_limits(self, stream: str, max_age: timedelta | float | None = None, max_count: int | None = None) -> None:
        """Only the newest `max_count` events, and those not older than `max_age` (seconds, or a timedelta), are read.

        None: no such limit. Replaces both limits.
        """
        age_ms = None if max_age is None else _checked_age_ms(max_age)
        count = None if max_count is None else _checked_int("max_count", max_count, 1)
        self._change(stream, lambda known: {"max_age_ms": age_ms, "max_count": count})

    def delete(self, stream: str) -> None:
        """Delete a stream: it does not exist any more. Appending makes it exist again, its versions go on.

        Nothing happens when it does not exist.
        """
        self._change(stream, lambda known: {"deleted_at": known.last_version} if known.exists else None)

    def tombstone(self, stream: str) -> None:
        """Delete a stream for ever: nothing can be appended to it, or read from it, any more (`StreamDeletedError`)."""
        self._change(stream, lambda known: {"tombstoned": True, "deleted_at": known.last_version})

    def _change(self, stream: str, changes: Any) -> None:
        _check_stream(stream)
        with self._lock:
            while True:
                end = self._catch_up()
                known = self._existing(stream)
                wanted = changes(known)
                if wanted is None:
                    return
                state = StreamState(**{**_fields(known.state), **wanted})
                if state == known.state:
                    return
                headers: rf.Headers = [(rf.STATE, b"")]
                now = self._log.clock.time_ms()
                if self._log.append([state.to_json()], [stream.encode()], [headers], now, end) is not None:
                    self._catch_up()
                    return

    def _existing(self, stream: str) -> Stream:
        known = self._stream(stream)
        if known.tombstoned:
            raise StreamDeletedError(f"stream {stream!r} was deleted for ever (tombstone)")
        return known

    def _deleted_at(self, stream: str) -> int:
        """The version that was the last one when the stream was deleted; -1: it was not."""
        with self._lock:
            return self._stream(stream).state.deleted_at

    def _stream(self, stream: str) -> Stream:
        known = self._streams.get(stream)
        if known is None:
            last = next((number for number, _ in self._index.newest(rf.stream_term(stream))), -1)
            state = NOTHING
            for _, offset in self._index.newest(rf.state_term(stream)):
                for record in self._log.read(offset, offset + 1):
                    state = StreamState.from_json(record.value or b"")
                break
            known = self._streams[stream] = Stream(stream, last, state)
        return known

    def _catch_up(self) -> int:
        if self._closed:
            raise ClosedError(f"event store {self.name!r} was closed")
        before = self._index.end
        end = self._index.catch_up()
        if end != before:
            self._streams.clear()
        return end

    def wait(self, position_after: int, timeout: float) -> bool:
        """Block until something is stored after that position; False when `timeout` (seconds) passed before.

        Woken by whoever stores it, in any process.
        """
        after = _checked_position("position_after", position_after)
        return self._log.wait(after, timeout)

    # --- life ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the index. The broker closes its stores with it. May be repeated."""
        self._closed = True
        for follower in list(self._followers):
            follower.close()
        self._erasure.keys.close()
        self._snapshot_file.close()
        self._subscription_file.file.close()
        self.broker._unregister(self)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        self._erasure.keys.after_fork()
        self._snapshot_file.after_fork()
        self._subscription_file.file.after_fork()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<EventStore {self.name!r}>"


def _fields(state: StreamState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in state.__struct_fields__}


def _cut(
    found: Iterable[RecordedEvent], until: datetime | None, backwards: bool, limit: int | None
) -> Iterator[RecordedEvent]:
    if until is not None:
        found = _until(found, until)
    if backwards:
        found = reversed(list(found))
    for count, event in enumerate(found):
        if limit is not None and count >= limit:
            return
        yield event


def _until(found: Iterable[RecordedEvent], until: datetime) -> Iterator[RecordedEvent]:
    for event in found:
        if event.timestamp > until:
            return
        yield event


def _check_stream(stream: object) -> None:
    if not isinstance(stream, str) or not stream:
        raise InvalidTypeError(f"stream is {stream!r}; a str that is not empty is needed")


def _checked_int(name: str, value: object, least: int) -> int:
    if type(value) is not int:
        raise InvalidTypeError(f"{name} is {value!r}; an int is needed")
    if value < least:
        raise InvalidArgumentError(f"{name} is {value}; allowed is {least} or more")
    return value


def _checked_position(name: str, value: object) -> int:
    return _checked_int(name, value, 0)


def _checked_limit(limit: object) -> int | None:
    return None if limit is None else _checked_int("limit", limit, 0)


def _checked_time(until: datetime) -> datetime:
    if until.tzinfo is None:
        raise InvalidArgumentError(f"until is {until!r}; a datetime with a time zone is needed")
    return until


def _checked_age_ms(max_age: object) -> int:
    seconds = max_age.total_seconds() if isinstance(max_age, timedelta) else max_age
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds <= 0:
        raise InvalidArgumentError(f"max_age is {max_age!r}; seconds (> 0) or a timedelta is needed")
    return round(seconds * 1000)
