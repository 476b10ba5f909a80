"""The part of an event store that loads and saves aggregates."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from penstock._native.stored_events import StoredEvent
from penstock.errors import DiskFullError, InvalidArgumentError, InvalidTypeError, LockedError
from penstock.events.aggregate import Aggregate, check_snapshot_every
from penstock.events.checks import checked_list, checked_text
from penstock.events.erasure import Erasure
from penstock.events.errors import AggregateNotFoundError
from penstock.events.replay import Replay
from penstock.events.snapshots import Snapshot, SnapshotFile, SnapshotInfo
from penstock.events.store.append_result import AppendResult
from penstock.events.store.expected import NO_STREAM, Expected

if TYPE_CHECKING:
    from penstock.events.store.core import Core
    from penstock.events.store.event_store import EventStore

A = TypeVar("A", bound=Aggregate)
_log = logging.getLogger("penstock.events")


class Snapshots:
    """`EventStore.snapshots`: looking after the snapshots of a store's aggregates."""

    def __init__(self, store: EventStore, file: SnapshotFile) -> None:
        self._store = store
        self._file = file

    def take(self, aggregate: Aggregate) -> bool:
        """Keep the state of an aggregate as it was loaded or saved; False when personal data in it were forgotten
        since. Raises `InvalidArgumentError` (it has events that are not stored), `InvalidTypeError`.
        """
        self._store._core.check_open()
        _check_aggregate(aggregate)
        if aggregate.pending or aggregate.stored_version < 0 or aggregate._behind:
            raise InvalidArgumentError(
                f"aggregate is {aggregate!r}; a snapshot needs one whose state is that of its stream"
            )
        return self._keep(aggregate, self._file.format_of(type(aggregate)).encode(aggregate))

    def _keep(self, aggregate: Aggregate, raw: bytes) -> bool:
        version = aggregate.stored_version
        last = next(self._store.read(aggregate.id, version, version), None)
        if last is None:  # truncated or deleted meanwhile
            return False
        now = self._store.broker.clock.time_ms()
        kept = self._file.put(aggregate.id, type(aggregate), version, last.message_id, aggregate._keys, raw, now)
        if kept:
            aggregate._snapshot_at = version
        return kept

    def rebuild(self, cls: type[Aggregate], id: str) -> SnapshotInfo | None:
        """Take a snapshot from the events alone; None when there are no events."""
        aggregate = self._store.load(cls, id, snapshots=False)
        self._file.delete(id, cls)
        if aggregate.stored_version >= 0:
            self.take(aggregate)
        return self.info(cls, id)

    def info(self, cls: type[Aggregate], id: str) -> SnapshotInfo | None:
        """What is known of an aggregate's snapshot; None: there is none."""
        self._store._core.check_open()
        _check_load(cls, id, None, None)
        return self._file.info(id, cls)

    def delete(self, id: str | None = None) -> int:
        """Delete the snapshots of an aggregate (default: of all); returns how many there were."""
        self._store._core.check_open()
        return self._file.delete(None if id is None else checked_text("id", id))


class AggregateStore:
    """Loading and saving; a base of `EventStore`."""

    _erasure: Erasure
    _core: Core
    _snapshot_file: SnapshotFile
    _replays: dict[type[Aggregate], Replay]

    @property
    def snapshots(self) -> Snapshots:
        """The snapshots of aggregates: take, rebuild, look at, delete."""
        self._core.check_open()
        store = _store(self)
        return Snapshots(store, self._snapshot_file)

    def load(
        self,
        cls: type[A],
        id: str,
        version: int | None = None,
        as_of: datetime | int | None = None,
        *,
        snapshots: bool = True,
        must_exist: bool = False,
    ) -> A:
        """The aggregate whose stream is `id`: as it is now, as it was at `version`, or as it was at a time.

        `as_of`: a datetime with time zone, or milliseconds since the epoch: events up to and with it count. One
        without events is new (version -1), unless `must_exist`. `snapshots`: whether one may be used. Of a stream that
        was truncated, what is there makes the state, if no snapshot has it.
        Raises `AggregateNotFoundError`, `StreamDeletedError`, `UnknownEventTypeError`, `InvalidEventError`,
        `InvalidArgumentError` (`version` is not stored), `InvalidTypeError`.
        """
        _check_load(cls, id, version, as_of)
        self._core.check_open()
        store = _store(self)
        aggregate = cls.__new__(cls)
        aggregate._id = id
        records: Iterable[StoredEvent] | None = None
        if snapshots and as_of is None:
            snapshot = self._snapshot_file.get(id, cls)
            if snapshot is not None and (version is None or snapshot.version <= version):
                records = _after_snapshot(store, aggregate, snapshot, version)
        if records is None:
            records = store._records_of(id, 0, version) if as_of is None else _until(store, id, as_of)
        replay = self._replays.get(cls)
        if replay is None:
            replay = self._replays[cls] = Replay(cls, self._erasure)
        last, secrets = replay.run(aggregate, records)
        if last is not None:
            aggregate._stored_version = last.version
        if secrets:
            aggregate._keys |= {key_id for key_id, secret in secrets.items() if secret is not None}
        if version is not None and aggregate._stored_version != version:
            raise InvalidArgumentError(f"version is {version}; {id!r} has versions up to {store.version(id)}")
        if must_exist and aggregate._stored_version < 0:
            raise AggregateNotFoundError(f"there is no {cls.__name__} {id!r}: its stream has no events")
        return aggregate

    def save(
        self,
        aggregate: Aggregate,
        expected_version: Expected | None = None,
        metadata: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
        *,
        snapshot_every: int | None = None,
    ) -> AppendResult:
        """Append what the aggregate recorded to its stream, all or none; (version, position) of the last event.

        `expected_version` (default: the version that it was loaded at, so that nobody's decision is overlooked); see
        `append`. With nothing recorded, nothing is done, and the position is the store's. `snapshot_every` (default:
        the class's): take a snapshot when so many events were stored since the last one; one that cannot be written
        is logged, since the events are stored.
        Raises `WrongVersionError` (a `ConcurrencyError` with `actual_version`; load again and decide again) and what
        `append` raises; nothing was stored then, and the aggregate keeps what it recorded.
        """
        return self._save([aggregate], [expected_version], metadata, tags, snapshot_every)[0]

    def save_all(
        self,
        aggregates: Iterable[Aggregate],
        metadata: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
        *,
        snapshot_every: int | None = None,
    ) -> list[AppendResult]:
        """Save several aggregates, all or none; as `save`."""
        chosen = checked_list("aggregates", aggregates)
        return self._save(chosen, [None] * len(chosen), metadata, tags, snapshot_every)

    def _save(
        self,
        aggregates: list[Aggregate],
        expected: list[Expected | None],
        metadata: Mapping[str, Any] | None,
        tags: Iterable[str],
        snapshot_every: int | None,
    ) -> list[AppendResult]:
        check_snapshot_every(snapshot_every)
        self._core.check_open()
        store = _store(self)
        appends: dict[str, tuple[list[Any], Expected]] = {}
        for aggregate, version in zip(aggregates, expected, strict=True):
            _check_aggregate(aggregate)
            if aggregate.id in appends:
                raise InvalidArgumentError(f"aggregates has {aggregate.id!r} twice; each stream may be saved once")
            if version is None:
                version = aggregate.stored_version if aggregate.stored_version >= 0 else NO_STREAM
            if aggregate._pending:
                appends[aggregate.id] = (list(aggregate._pending), version)
        due = {one.id: raw for one in aggregates if (raw := _due_state(store, one, snapshot_every)) is not None}
        if not appends:
            return [AppendResult(one.version, store.position) for one in aggregates]
        now = store.broker.clock.time_ms()
        for aggregate in aggregates:
            aggregate._keys |= self._erasure.key_ids(aggregate._pending, now)
        stored = store.append_many(appends, metadata, tags)
        for aggregate in aggregates:
            if aggregate.id in stored:
                _stored(aggregate, stored[aggregate.id].version, appends[aggregate.id][1])
            if aggregate.id in due and not aggregate._behind:
                _keep(store, aggregate, due[aggregate.id])
        position = max(result.position for result in stored.values())
        return [stored.get(one.id, AppendResult(one.version, position)) for one in aggregates]


def _store(part: AggregateStore) -> EventStore:
    """The store that this is a part of."""
    return cast("EventStore", part)


def _stored(aggregate: Aggregate, version: int, expected: Expected) -> None:
    """What an aggregate recorded is stored, the last of it as `version`."""
    known = aggregate._stored_version
    count = len(aggregate._pending)
    if version - count != known and not (known < 0 and expected is NO_STREAM):
        aggregate._behind = True  # events of others are between: its state does not have them
        version = known + count  # not the stream's, so that the next save finds out
    aggregate._stored_version = version
    aggregate._pending = []


def _due_state(store: EventStore, aggregate: Aggregate, snapshot_every: int | None) -> bytes | None:
    """The state to be kept as a snapshot once the events are stored, if it is time."""
    every = snapshot_every or type(aggregate).snapshot_every
    if every is None or aggregate._behind or aggregate.version - aggregate._snapshot_at < every:
        return None
    return store._snapshot_file.format_of(type(aggregate)).encode(aggregate)


def _keep(store: EventStore, aggregate: Aggregate, raw: bytes) -> None:
    try:
        store.snapshots._keep(aggregate, raw)
    except (DiskFullError, LockedError) as error:
        _log.warning("no snapshot of %s at version %d: %s", aggregate.id, aggregate.stored_version, error)


def _after_snapshot(
    store: EventStore, aggregate: Aggregate, snapshot: Snapshot, version: int | None
) -> Iterable[StoredEvent] | None:
    """Set the aggregate to the snapshot; the records after it. None: it is not of this stream (deleted, cut off)."""
    records = iter(store._records_of(aggregate._id, snapshot.version, version))
    first = next(records, None)
    if first is None:
        usable = store.version(aggregate._id) == snapshot.version  # truncated up to here
        rest: list[StoredEvent] = []
    elif first.version == snapshot.version:
        usable = first.value.startswith(b'{"messageId":"%s"' % snapshot.message_id.encode())
        rest = []
    else:
        usable = first.version == snapshot.version + 1
        rest = [first]
    if not usable or snapshot.version <= store._deleted_at(aggregate._id):
        store._snapshot_file.delete(aggregate._id, type(aggregate))
        return None
    vars(aggregate).update(snapshot.state)
    aggregate._stored_version = aggregate._snapshot_at = snapshot.version
    aggregate._keys = snapshot.key_ids
    return [*rest, *records]


def _until(store: EventStore, stream: str, as_of: datetime | int) -> Iterable[StoredEvent]:
    try:
        at = datetime.fromtimestamp(as_of / 1000, UTC) if isinstance(as_of, int) else as_of
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidArgumentError(f"as_of is {as_of}; that is no time: {error}") from error
    return store.read(stream, until=at)


def _check_load(cls: object, id: object, version: object, as_of: object) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Aggregate)) or cls is Aggregate:
        raise InvalidTypeError(f"cls is {cls!r}; a class derived from events.Aggregate is needed")
    checked_text("id", id)
    if version is not None and (type(version) is not int or version < 0):
        raise InvalidArgumentError(f"version is {version!r}; allowed are None and an int from 0")
    if as_of is None:
        return
    if version is not None:
        raise InvalidArgumentError("version and as_of are given; one of them is allowed")
    if isinstance(as_of, bool) or not isinstance(as_of, (int, datetime)):
        raise InvalidTypeError(f"as_of is {as_of!r}; a datetime, or an int of milliseconds since the epoch, is needed")
    if isinstance(as_of, datetime) and as_of.tzinfo is None:
        raise InvalidArgumentError(f"as_of is {as_of!r}; a datetime with a time zone is needed")


def _check_aggregate(aggregate: object) -> None:
    if not isinstance(aggregate, Aggregate):
        raise InvalidTypeError(f"aggregate is {type(aggregate).__name__}; an object of an Aggregate class is needed")
