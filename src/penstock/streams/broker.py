"""The broker: an open data directory, and everything one does with its topics.

Thread safety: any thread. Process safety: any number of processes open the same directory. After `fork()` the child's
broker works: it holds its own locks and connections, and what the parent had buffered stays the parent's.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shutil
import threading
import uuid
import weakref
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

from penstock._native.bell import Bell, Bells
from penstock.clock import Clock, SystemClock
from penstock.errors import (
    ClosedError,
    CorruptionError,
    InvalidConfigError,
    InvalidTypeError,
    PenstockError,
    TopicExistsError,
    UnknownTopicError,
)
from penstock.metrics import Metrics
from penstock.storage.catalog import Catalog
from penstock.storage.compaction import Compaction, compact
from penstock.storage.directory import BELLS_FILE, Directory, FileLock, boot_id
from penstock.storage.forks import held
from penstock.storage.group_store import GroupStore
from penstock.storage.metrics_store import MetricsStore
from penstock.storage.partition_log import PartitionLog
from penstock.storage.recovery import Incarnation
from penstock.storage.retention import enforce_retention
from penstock.storage.topic_config import TopicConfig, check_topic_name
from penstock.streams.background import Background
from penstock.streams.consumer import Consumer
from penstock.streams.group_admin import GroupAdmin, GroupDescription
from penstock.streams.keeper import Keeper
from penstock.streams.metrics_reader import MetricsReader
from penstock.streams.producer import Producer
from penstock.streams.topic import Topic
from penstock.streams.topic_partition import TopicPartition
from penstock.streams.transaction import check_transactional_id
from penstock.streams.transactions import TransactionDescription, Transactions

FSYNC_MODES = ("never", "interval", "always")
_DATA_BELL = 0
_CATALOG_BELL = 1
_log = logging.getLogger("penstock.broker")
_live: weakref.WeakSet[Broker] = weakref.WeakSet()


class Broker:
    """An open data directory, as far as the log goes; `penstock.Broker` adds the queues.

    Raises `DataDirectoryError` (not a directory, not writable), `FormatVersionError` (written by a newer version),
    `InvalidConfigError`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fsync: str = "interval",
        fsync_interval_ms: int = 1000,
        maintenance_interval_ms: int = 30_000,
        clock: Clock | None = None,
        metrics: bool = True,
    ) -> None:
        if fsync not in FSYNC_MODES:
            raise InvalidConfigError(f"fsync is {fsync!r}; allowed are {', '.join(map(repr, FSYNC_MODES))}")
        _check_interval("fsync_interval_ms", fsync_interval_ms)
        _check_interval("maintenance_interval_ms", maintenance_interval_ms)
        if not isinstance(path, (str, os.PathLike)):
            raise InvalidTypeError(f"path is {type(path).__name__}; a str or a path is needed")
        self.path = Path(path)
        self.fsync = fsync
        self.clock: Clock = clock or SystemClock()
        self._settings = (fsync, fsync_interval_ms, maintenance_interval_ms)
        self._directory = Directory(self.path)
        with contextlib.ExitStack() as opened:  # what is open when the rest cannot be opened is closed
            opened.callback(self._directory.close)
            self._incarnation = Incarnation(self._directory.incarnation, boot_id())
            self._bells = Bells(str(self.path / BELLS_FILE))
            self._bell = Bell(self._bells, _DATA_BELL)
            self._catalog_bell = Bell(self._bells, _CATALOG_BELL)
            self._catalog = Catalog(self.path)
            opened.callback(self._catalog.close)
            self._groups = GroupStore(self.path, fsync == "always")
            opened.callback(self._groups.close)
            self._metrics_store = MetricsStore(self.path) if metrics else None
            opened.pop_all()
        self._metrics_reader: MetricsReader | None = None
        self._lock = held(threading.RLock())
        self._topics: dict[str, TopicConfig] = {}
        self._topics_generation = -1
        self._logs: dict[tuple[str, int], PartitionLog] = {}
        self._handles: weakref.WeakSet[Any] = weakref.WeakSet()
        self._producers: set[Producer] = set()  # held: one that is dropped without a close may have unsent records
        self._closed = False
        self._keeper = Keeper(self)
        self._transactions = Transactions(self)
        self._election = FileLock(self.path / "maintenance.lock")
        self._background = Background(self)
        subscribe = getattr(self.clock, "subscribe", None)
        if subscribe is not None:
            subscribe(self._bell.ring)
        _live.add(self)

    # --- topics ----------------------------------------------------------------------------------------------------

    def create_topic(self, name: str, partitions: int = 1, **config: Any) -> Topic:
        """Create a topic. `config`: see `TopicConfig` (Kafka's topic configuration in snake_case).

        Raises `TopicExistsError`, `InvalidNameError`, `InvalidConfigError`, `DiskFullError`.
        """
        self._check_open()
        name = check_topic_name(name)
        topic_config = TopicConfig().altered({**config, "partitions": partitions})
        with self._topics_lock():
            if name in self._catalog.topics():
                raise TopicExistsError(f"topic {name!r} exists")
            for number in range(partitions):
                self._make_directory(name, number)
            self._catalog.create(name, topic_config, self.clock.time_ms())
        self._catalog_bell.ring()
        return self.topic(name)

    def topic(self, name: str) -> Topic:
        """A handle on a topic, or `UnknownTopicError`."""
        name = check_topic_name(name)
        self._topic_config(name)
        return Topic(self, name)

    def topics(self) -> list[str]:
        """Names of the topics, in alphabetical order."""
        self._check_open()
        return list(self._configs())

    def alter_topic(self, name: str, partitions: int | None = None, **config: Any) -> Topic:
        """Change a topic's configuration, or add partitions (their number never shrinks).

        Raises `UnknownTopicError`, `InvalidConfigError`.
        """
        self._check_open()
        check_topic_name(name)
        changes = dict(config) if partitions is None else {**config, "partitions": partitions}
        with self._topics_lock():
            old = self._catalog.topics().get(name)
            if old is None:
                raise UnknownTopicError(f"topic {name!r} does not exist")
            new = old.altered(changes)
            if new.partitions < old.partitions:
                raise InvalidConfigError(
                    f"partitions is {new.partitions}; topic {name!r} has {old.partitions}, and none can be removed"
                )
            for number in range(old.partitions, new.partitions):
                self._make_directory(name, number)
            self._catalog.alter(name, new)
        self._catalog_bell.ring()
        self._bell.ring()
        return self.topic(name)

    def delete_topic(self, name: str) -> None:
        """Delete a topic with its records. Handles in every process get `UnknownTopicError`.

        Raises `UnknownTopicError`, `InvalidNameError`.
        """
        self._check_open()
        config = self._topic_config(check_topic_name(name))
        with self._topics_lock():
            logs = [self._log(name, number) for number in range(config.partitions)]
            self._catalog.delete(name)
            self._catalog_bell.ring()  # first: from now on no group assigns it anew
            self._groups.forget_topic(name)
            for log in logs:
                log._lock()
                log._mark_deleted()
                log._unlock()
                log.close(durable=False)
                self._remove_directory(log.directory)
            if self._metrics_store is not None:
                self._metrics_store.retire(self.clock.time_ms(), name)
        with self._lock:
            for number in range(config.partitions):
                self._logs.pop((name, number), None)
        self._catalog_bell.ring()
        self._bell.ring()

    def delete_records(self, partition: TopicPartition, before_offset: int) -> int:
        """Make records below `before_offset` unreadable (Kafka's DeleteRecords); returns the new log start offset.

        Raises `InvalidTypeError`, `UnknownTopicError`, `OffsetOutOfRangeError` (beyond the log's end).
        """
        if isinstance(before_offset, bool) or not isinstance(before_offset, int):
            raise InvalidTypeError(f"before_offset is {type(before_offset).__name__}; an int is needed")
        return self._log(*partition).delete_before(before_offset)

    def compact(self, topic: str, partition: int | None = None) -> dict[TopicPartition, Compaction]:
        """Compact a topic's partitions now (default: all), the active segments too; what it did to each.

        Needs `cleanup_policy` `compact` or `compact,delete`. A partition that another process compacts is left out.
        Raises `UnknownTopicError`, `InvalidConfigError`, `CorruptionError`, `DiskFullError` (nothing is lost).
        """
        config = self._topic_config(check_topic_name(topic))
        if not config.compacts:
            raise InvalidConfigError(f"cleanup_policy of {topic!r} is {config.cleanup_policy!r}; 'compact' is needed")
        done = {}
        for number in range(config.partitions) if partition is None else [partition]:
            found = compact(self._log(topic, number), self.clock.time_ms(), force=True)
            if found is not None:
                done[TopicPartition(topic, number)] = found
        return done

    # --- producing and consuming -----------------------------------------------------------------------------------

    def producer(self, **options: Any) -> Producer:
        """A producer; see `Producer` for the options."""
        self._check_open()
        return Producer(self, **options)

    def consumer(self, *topics: str, **options: Any) -> Consumer:
        """A consumer of `topics` (or of none, for `subscribe` and `assign`); see `Consumer` for the options.

        With `group`, the group's consumers share the partitions; without, it reads all of them."""
        self._check_open()
        return Consumer(self, *topics, **options)

    # --- groups ----------------------------------------------------------------------------------------------------

    def groups(self) -> list[str]:
        """Names of the consumer groups, in alphabetical order."""
        self._check_open()
        return GroupAdmin(self).names()

    def describe_group(self, group: str) -> GroupDescription:
        """Members, partitions, committed offsets and lag of a consumer group, or `UnknownGroupError`."""
        self._check_open()
        return GroupAdmin(self).describe(group)

    def delete_group(self, group: str) -> None:
        """Delete a consumer group and its offsets. Raises `UnknownGroupError`, `GroupNotEmptyError`."""
        self._check_open()
        GroupAdmin(self).delete(group)

    def reset_offsets(
        self,
        group: str,
        topic: str,
        to: str | int | datetime | timedelta | None = None,
        *,
        shift_by: int | None = None,
        partitions: list[int] | None = None,
        dry_run: bool = False,
    ) -> dict[TopicPartition, int]:
        """Set a group's committed offsets in a topic; returns them (`dry_run`: without setting them).

        `to`: "earliest", "latest", "by_duration:PT1H", an offset (int), a point in time (`datetime`, or an int of
        milliseconds since the epoch, from 10**11 on) or so long ago (`timedelta`);
        or `shift_by` records, back when negative. Kept inside what is stored. `partitions`: default all.
        The group may be reading: its members go on at the new offsets (`on_lost`, then `on_assigned`), and a commit of
        what they read before is refused. A group that does not exist is made.

        Raises `UnknownTopicError`, `InvalidArgumentError`, `InvalidTypeError`, `InvalidConfigError`.
        """
        self._check_open()
        return GroupAdmin(self).reset(group, topic, to, shift_by, partitions, dry_run)

    # --- transactions ----------------------------------------------------------------------------------------------

    def transactions(self) -> list[TransactionDescription]:
        """The transactional producers of this directory, and their open transactions."""
        self._check_open()
        return self._transactions.describe()

    def abort_transaction(self, transactional_id: str) -> bool:
        """Abort the open transaction of an id, whoever has it, and fence its producer; False when none is open.

        A transaction that is decided is carried out instead. Raises `InvalidArgumentError` (unknown id).
        """
        self._check_open()
        return self._transactions.abort_hanging(check_transactional_id(transactional_id))

    # --- upkeep ----------------------------------------------------------------------------------------------------

    def metrics(self) -> Metrics:
        """A snapshot of everything: what topics, groups and queues hold now, and what all processes counted so far.

        Cheap enough for every second: 1,000 partitions take some milliseconds. `snapshot.since(earlier)` has the rates.
        """
        self._check_open()
        with self._lock:
            reader = self._metrics_reader = self._metrics_reader or self._make_metrics_reader()
        with reader.lock:
            return reader.read()

    def _make_metrics_reader(self) -> MetricsReader:
        return MetricsReader(self)

    def sync(self) -> None:
        """Everything this process stored is on the disk when this returns."""
        for log in self._open_logs():
            if log.written and not log.deleted:
                log.sync()
        self._groups.sync()

    def maintain(self) -> bool:
        """Delete what is past its retention, now. One process does it at a time: False when another one is at it."""
        self._check_open()
        if not self._election.try_acquire():
            return False
        for name, config in self._configs().items():
            for number in range(config.partitions):
                self._maintain_partition(name, number, config)
        GroupAdmin(self).expire()
        self._transactions.resolve()
        self._transactions.expire()
        for left in self.path.glob("deleted-*"):
            shutil.rmtree(left, ignore_errors=True)
        return True

    def _maintain_partition(self, name: str, number: int, config: TopicConfig) -> None:
        log = self._logs.get((name, number))
        passing = log is None
        try:
            if log is None:
                log = self._open_log(name, number, config)
            enforce_retention(log, self.clock.time_ms())
            if config.compacts:
                self._compact_if_due(log)
        except UnknownTopicError:
            _log.debug("topic %s was deleted during maintenance", name)
        finally:
            if passing and log is not None:
                log.close(durable=False)

    def _compact_if_due(self, log: PartitionLog) -> None:
        try:
            compact(log, self.clock.time_ms())
        except (CorruptionError, OSError):
            _log.exception("compacting %s failed and will be tried again", log.directory)

    def close(self) -> None:
        """Flush producers, close consumers, give preallocated room back, sync (unless `fsync="never"`).

        When a producer's records cannot be stored, or a group cannot be told, everything else is closed and that error
        is raised at the end. May be repeated.
        """
        if self._closed:
            return
        self._background.stop()
        first: Exception | None = None
        for handle in list(self._handles):
            try:
                handle.close()
            except PenstockError as error:
                first = first or error
                if isinstance(handle, Producer):
                    handle.purge()
                elif isinstance(handle, Consumer):
                    handle._abandon()
                handle.close()
        with self._lock:
            self._closed = self._catalog_bell.closed = True
            self._metrics_reader = None
            logs, self._logs = list(self._logs.values()), {}
        for log in logs:
            try:
                log.close(durable=self.fsync != "never")
            except OSError as error:
                first = first or error
        try:
            self._keeper.stop()
            if self.fsync != "never":
                self._groups.sync()
        except PenstockError as error:
            first = first or error
        self._groups.close()
        self._catalog.close()
        unsubscribe = getattr(self.clock, "unsubscribe", None)
        if unsubscribe is not None:
            unsubscribe(self._bell.ring)
        self._election.release()
        self._directory.close()
        _live.discard(self)
        if first is not None:
            raise first

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<penstock.Broker {str(self.path)!r}{' closed' if self._closed else ''}>"

    # --- for the handles of this broker ----------------------------------------------------------------------------

    @property
    def catalog_generation(self) -> int:
        """Changes whenever a topic was created, altered or deleted by any process."""
        return int(self._catalog_bell.value)

    def _configs(self) -> dict[str, TopicConfig]:
        generation = self.catalog_generation
        if generation != self._topics_generation:
            with self._lock:
                topics = self._catalog.topics()
                for (name, number), log in list(self._logs.items()):
                    if log.deleted or name not in topics:
                        del self._logs[name, number]
                    else:
                        log.configure(topics[name])
                self._topics, self._topics_generation = topics, generation
        return self._topics

    def _topic_config(self, name: str) -> TopicConfig:
        self._check_open()
        config = self._configs().get(name)
        if config is None:  # or whoever made it has not rung yet, or died before that
            self._topics_generation = -1
            config = self._configs().get(name)
        if config is None:
            raise UnknownTopicError(f"topic {name!r} does not exist")
        return config

    def _log(self, name: str, number: int) -> PartitionLog:
        config = self._topic_config(name)
        log = self._logs.get((name, number))
        if log is not None:
            return log
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < config.partitions:
            raise UnknownTopicError(f"partition is {number!r}; topic {name!r} has 0 to {config.partitions - 1}")
        with self._lock:
            log = self._logs.get((name, number))
            if log is None:
                log = self._logs[name, number] = self._open_log(name, number, config)
                log.sync_each = self.fsync == "always"
        return log

    def _open_log(self, name: str, number: int, config: TopicConfig) -> PartitionLog:
        directory = self.path / f"{name}-{number}"
        try:
            log = PartitionLog(
                directory, name, number, self._bells, config, self._incarnation, self._rolled, self._filled
            )
        except CorruptionError:
            if name in self._catalog.topics():
                raise
            raise UnknownTopicError(f"topic {name!r} was deleted") from None  # its directory goes after its row
        if self._metrics_store is not None:
            self._metrics_store.count_partition(log, self.clock.time_ms())
        return log

    def _rolled(self, log: PartitionLog) -> None:
        if log.config.discards_above_bytes >= 0:
            enforce_retention(log, self.clock.time_ms())

    def _filled(self, log: PartitionLog) -> None:
        """A partition that refuses new records is full: what is past its retention goes now."""
        enforce_retention(log, self.clock.time_ms())

    def _open_logs(self) -> list[PartitionLog]:
        with self._lock:
            return list(self._logs.values())

    def _register(self, handle: Any) -> None:
        self._handles.add(handle)
        if isinstance(handle, Producer):
            self._producers.add(handle)

    def _unregister(self, handle: Any) -> None:
        self._handles.discard(handle)
        self._producers.discard(handle)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the broker of {str(self.path)!r} was closed")

    def _topics_lock(self) -> FileLock:
        return FileLock(self.path / "topics.lock")

    def _make_directory(self, name: str, number: int) -> None:
        directory = self.path / f"{name}-{number}"
        if directory.exists():  # left by a crash in the middle of a deletion or creation: no row, so nobody's
            self._remove_directory(directory)
        directory.mkdir()

    def _remove_directory(self, directory: Path) -> None:
        aside = self.path / f"deleted-{uuid.uuid4().hex}"
        directory.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def _after_fork(self) -> None:
        self._lock = held(threading.RLock())
        self._election.release()
        self._directory.rejoin()
        self._catalog.after_fork()
        self._groups.after_fork()
        self._metrics_reader = None
        if self._metrics_store is not None:
            self._metrics_store.after_fork()
        self._keeper.after_fork()
        self._transactions.after_fork()
        for log in self._logs.values():
            log._reset_locks()
        for handle in list(self._handles):
            handle._after_fork()
        self._background = Background(self)


def _check_interval(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidConfigError(f"{name} is {value!r}; allowed is an int of at least 1")


def _after_fork_in_child() -> None:
    for broker in list(_live):
        if not broker.closed:
            try:
                broker._after_fork()
            except Exception:  # the other brokers of this child are as good as ever
                _log.exception("the broker of %s cannot be used in this child", broker.path)


def _close_at_exit() -> None:
    for broker in list(_live):
        broker.close()


atexit.register(_close_at_exit)
os.register_at_fork(after_in_child=_after_fork_in_child)
