"""The event store: streams of events in one log.

Thread and process safety: any number of both; see `appending` and `index`.
Crash policy: an append is one batch of the log, there whole or not at all; the index is made from the log.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import msgspec

from penstock._native.builder import BatchBuilder
from penstock.errors import InvalidArgumentError, InvalidTypeError
from penstock.events.aggregate_store import AggregateStore
from penstock.events.checks import checked_broker, checked_text
from penstock.events.erasure import Erasure, Forgetting
from penstock.events.snapshots import SnapshotFile
from penstock.events.store import record_format as rf
from penstock.events.store.append_result import AppendResult
from penstock.events.store.appending import Boundary, Part, append
from penstock.events.store.arguments import check_stream, checked_age_ms, checked_int, checked_limit, split_until
from penstock.events.store.core import Core
from penstock.events.store.encoding import Encoder, Events
from penstock.events.store.expected import ANY, Expected, check_expected
from penstock.events.store.query import Query, check_tags
from penstock.events.store.reading import Rows, all_events, matching_events, stream_events, term_events, up_to
from penstock.events.store.recorded import RecordedEvent
from penstock.events.store.store_log import StoreLog
from penstock.events.store.stream_state import Stream
from penstock.events.subscribing import Subscribing
from penstock.events.subscription import checked_seconds
from penstock.events.subscription_file import SubscriptionFile
from penstock.events.unit_of_work import current_unit

if TYPE_CHECKING:
    from penstock.streams.broker import Broker

TAGGED = "$tagged"
"""The stream of events that `append_if` stored without naming one."""


class EventStore(AggregateStore, Subscribing, Forgetting):
    """`EventStore(broker, "shop")`: the store of that name, made when there is none.

    Any number of stores a broker, of objects a store, of threads and processes. `source`: the source in the envelopes
    of events (default: the store's name). Raises `InvalidNameError`, `InvalidConfigError` (the topic of that name is
    not a store's), `InvalidTypeError`.
    """

    def __init__(self, broker: Broker, name: str, *, source: str | None = None) -> None:
        self.name = checked_text("name", name)
        self.broker = checked_broker(broker)
        name = self.name
        self._erasure = Erasure(broker.path / f"{name}.keys.sqlite3")
        self._snapshot_file = SnapshotFile(broker.path / f"{name}.snapshots.sqlite3", self._erasure)
        self._replays = {}
        self._followers = weakref.WeakSet()
        self._subscription_file = SubscriptionFile(broker.path / f"{name}.subscriptions.sqlite3")
        self._encoder = Encoder(name if source is None else source, broker.clock, self._erasure)
        self.source = self._encoder.source
        """The source in the envelopes of events."""
        self._core = Core(StoreLog(broker, name, self._erasure))
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
        common = check_tags(tags)
        parts = []
        for stream, pair in appends.items():
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise InvalidTypeError(f"appends[{stream!r}] is {pair!r}; (events, expected_version) is needed")
            parts.append(self._part(stream, *pair, metadata, common))
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
        checked = checked_int("after", after)
        part = self._part(TAGGED if stream is None else stream, events, ANY, metadata, tags)
        return self._append([part], unless, checked)[0]

    def _part(
        self, stream: str, events: Events, expected: Expected, metadata: Mapping[str, Any] | None, tags: Iterable[str]
    ) -> Part:
        key = check_stream(stream)
        check_expected(expected)
        return Part(stream, key, self._encoder.prepare(events, metadata, tags), expected)

    def _append(self, parts: list[Part], unless: Query | None = None, after: int = 0) -> list[AppendResult]:
        unit = current_unit(self)
        if unit is not None:  # of a command: stored at its end, all or none
            with self._core.lock:
                self._core.catch_up()
                return unit.take(parts, {part.stream: self._core.stream(part.stream) for part in parts}, unless, after)
        return append(self._core, parts, None if unless is None else Boundary(unless, after))

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
        key = check_stream(stream)
        first = checked_int("from_version", from_version)
        left = checked_limit(limit)
        number, time = split_until(until)
        known = self._living(stream)
        first = max(first, known.first_version)
        last = known.last_version if number is None else min(number, known.last_version)
        if backwards and time is not None:
            last = max(
                (event.version for event in up_to(stream_events(self._core, key, first, last), time)), default=-1
            )
        found = stream_events(self._core, key, first, last, backwards)
        if not backwards:
            found = up_to(found, time)
        found = self._young(known, found)
        return found if left is None else itertools.islice(found, left)

    def _records_of(self, stream: str, first: int, last: int | None = None) -> Iterator[RecordedEvent]:
        """The events of a stream that may be read, from version `first` to `last`, as they are now."""
        known = self._living(stream)
        last = known.last_version if last is None else min(last, known.last_version)
        found = stream_events(self._core, stream.encode(), max(first, known.first_version), last)
        return self._young(known, found)

    def _young(self, known: Stream, found: Iterator[RecordedEvent]) -> Iterator[RecordedEvent]:
        age_ms = known.state.max_age_ms
        if age_ms is None:
            return found
        oldest_ms = self.broker.clock.time_ms() - age_ms
        return (event for event in found if event.timestamp_ms >= oldest_ms)

    def _living(self, stream: str) -> Stream:
        with self._core.lock:
            self._core.catch_up()
            return self._core.living(stream)

    def _deleted_at(self, stream: str) -> int:
        """The version that was the last one when the stream was deleted; -1: it was not."""
        return self._living(stream).state.deleted_at

    def read_all(
        self, after: int = 0, limit: int | None = None, backwards: bool = False, until: int | datetime | None = None
    ) -> Iterator[RecordedEvent]:
        """Every event stored after position `after`, up to `until` (a position, or a time; included), in the order in
        which they were stored, as they are now.

        Events that their streams do not show any more (truncated, deleted) are part of it. `backwards`: the newest
        first. `limit`: so many. Lazy.
        """
        start = checked_int("after", after)
        left = checked_limit(limit)
        number, time = split_until(until)
        end = self._end() if number is None else min(number, self._end())
        if backwards and time is not None:
            end = max((event.position for event in up_to(all_events(self._core, start, end), time)), default=0)
        found = all_events(self._core, start, end, backwards)
        return itertools.islice(found if backwards else up_to(found, time), left)

    def query(self, query: Query, after: int = 0, limit: int | None = None) -> Iterator[RecordedEvent]:
        """The events that match, stored after position `after`, in order. Lazy; as `read_all`."""
        if not isinstance(query, Query):
            raise InvalidTypeError(f"query is {query!r}; an events.Query is needed")
        start = checked_int("after", after)
        left = checked_limit(limit)
        return itertools.islice(matching_events(self._core, query, start, self._end()), left)

    def read_category(self, category: str, after: int = 0, limit: int | None = None) -> Iterator[RecordedEvent]:
        """The events of all streams whose name is `category`, or begins with it and "-", in the order in which they
        were stored. A category with a "-" in it is looked for in the one before. Lazy; as `read_all`."""
        check_stream(category, "category")
        start = checked_int("after", after)
        left = checked_limit(limit)
        end = self._end()
        rows = Rows(self._core, rf.category_term(category))
        found = term_events(self._core, rows, start, end)
        return itertools.islice((event for event in found if rf.is_in_category(event.stream, category)), left)

    def _end(self) -> int:
        with self._core.lock:
            return self._core.catch_up()

    # --- streams ---------------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Global position of what was stored last; 0 when there is nothing."""
        self._core.check_open()
        return self._core.log.end

    def version(self, stream: str) -> int:
        """Version of a stream's last event; -1 when the stream does not exist. Raises `StreamDeletedError`."""
        check_stream(stream)
        return self._living(stream).version

    def streams(self, category: str | None = None) -> Iterator[str]:
        """The names of the streams (of a category) that exist, in the order in which they began. Reads the log."""
        found = self.read_all() if category is None else self.read_category(category)
        for event in found:
            if event.version == 0:
                with self._core.lock:
                    self._core.catch_up()
                    known = self._core.stream(event.stream)
                if known.exists and not known.tombstoned:
                    yield event.stream

    def truncate(self, stream: str, before_version: int) -> None:
        """Events below `before_version` are not read any more."""
        before = checked_int("before_version", before_version)
        self._change(stream, lambda known: {"truncate_before": before})

    def set_limits(self, stream: str, max_age: timedelta | float | None = None, max_count: int | None = None) -> None:
        """Only the newest `max_count` events, and those not older than `max_age` (seconds, or a timedelta), are read.

        None: no such limit. Replaces both limits.
        """
        age_ms = None if max_age is None else checked_age_ms(max_age)
        count = None if max_count is None else checked_int("max_count", max_count, 1)
        self._change(stream, lambda known: {"max_age_ms": age_ms, "max_count": count})

    def delete(self, stream: str) -> None:
        """Delete a stream: it does not exist any more. Appending makes it exist again, its versions go on.

        Nothing happens when it does not exist.
        """
        self._change(stream, lambda known: {"deleted_at": known.last_version} if known.exists else None)

    def tombstone(self, stream: str) -> None:
        """Delete a stream for ever: nothing can be appended to it, or read from it, any more (`StreamDeletedError`)."""
        self._change(stream, lambda known: {"tombstoned": True, "deleted_at": known.last_version})

    def _change(self, stream: str, changes: Callable[[Stream], dict[str, Any] | None]) -> None:
        """Store the state with these changes. Raises `StreamDeletedError`."""
        key = check_stream(stream)
        core = self._core
        headers: rf.Headers = [(rf.STATE, b"")]
        with core.lock:
            while True:
                end = core.catch_up()
                known = core.living(stream)
                wanted = changes(known)
                state = known.state if wanted is None else msgspec.structs.replace(known.state, **wanted)
                if state == known.state:
                    return
                builder = BatchBuilder()
                builder.append(state.to_json(), key, headers, self.broker.clock.time_ms())
                if core.log.append(builder, end):
                    core.catch_up()
                    return

    def wait(self, position_after: int, timeout: float) -> bool:
        """Block until something is stored after that position; False when `timeout` (seconds) passed before.

        Woken by whoever stores it, in any process.
        """
        after = checked_int("position_after", position_after)
        checked_seconds("timeout", timeout)
        self._core.check_open()
        return self._core.log.wait(after, timeout)

    # --- life ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End its subscriptions, and let go of the index. Everything else raises `ClosedError` afterwards. The broker
        closes its stores with it. May be repeated."""
        for follower in list(self._followers):
            follower.close()
        self._core.close()
        self._erasure.keys.close()
        self._snapshot_file.close()
        self._subscription_file.file.close()
        self.broker._unregister(self)

    def _after_fork(self) -> None:
        self._core.after_fork()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<EventStore {self.name!r}>"
