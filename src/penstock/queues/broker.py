"""The broker with everything: the log's, and queues, share groups, exchanges and schedules."""

from __future__ import annotations

import os
import shutil
import threading
from typing import Any

from penstock._native.bell import Bell
from penstock.clock import Clock
from penstock.errors import (
    InvalidArgumentError,
    InvalidConfigError,
    TopicExistsError,
    UnknownExchangeError,
    UnknownQueueError,
    UnknownTopicError,
)
from penstock.queues.dead_letter import HEADERS_BYTES_MAX
from penstock.queues.delivery_store import PREFIX, groups_of
from penstock.queues.exchange import Exchange
from penstock.queues.matchers import EXCHANGE_TYPES
from penstock.queues.metrics_reader import QueueMetricsReader
from penstock.queues.ownership import Ownership
from penstock.queues.queue import Queue
from penstock.queues.queue_config import QueueConfig
from penstock.queues.queue_store import QueueStore
from penstock.queues.retention_policy import check_group, trim, trim_partition
from penstock.queues.router import Router
from penstock.queues.schedule import Schedule, Schedules
from penstock.queues.share_group import OFFSET_MAX, ShareGroup
from penstock.storage.directory import SharedLock
from penstock.storage.partition_log import PartitionLog
from penstock.storage.topic_config import GIB, check_topic_name
from penstock.streams.broker import Broker as LogBroker

_ROUTING_BELL = 2
DEAD_LETTER_RECEIVES = None


class Broker(LogBroker):
    """An open data directory. Make one with `penstock.open`; close it, or use it as a context manager.

    Raises `DataDirectoryError` (not a directory, not writable), `FormatVersionError` (written by a newer version),
    `InvalidConfigError`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._open_queues: dict[str, Queue] = {}
        self._queue_lock = threading.RLock()
        self._queue_store: QueueStore | None = None
        self._known_queues: tuple[int, dict[str, QueueConfig]] = (-1, {})
        self._known_router: tuple[tuple[int, int], Router] | None = None
        self._senders: dict[tuple[str, str], Any] = {}
        self._ownership = Ownership(self)
        super().__init__(*args, **options)
        try:
            self._routing_bell = Bell(self._bells, _ROUTING_BELL)
            self._declaring = SharedLock(self.path / "queues.lock")
            if self._has_queues():
                self._ownership.delete_transient()
            self._schedules = Schedules(self)
        except BaseException:
            super().close()
            if self._queue_store is not None:
                self._queue_store.close()
            raise

    # --- queues ----------------------------------------------------------------------------------------------------

    def queue(self, name: str, **options: Any) -> Queue:
        """The queue of this name; made when it does not exist. `options`: see `QueueConfig`.

        When it exists, options that are given and differ are changed for everybody (all but `fifo` and
        `max_priority`, which
        stay: `InvalidConfigError`). A `dead_letter` queue is made as well. Raises `InvalidNameError`,
        `InvalidConfigError`, `TopicExistsError` (an ordinary topic has this name), `LockedError` (it is exclusive, and
        another broker's).
        """
        name = check_topic_name(name)
        self._check_open()
        with self._queue_lock:
            config = self.queues().get(name)
            if config is not None and not self._ownership.check(name, config):
                config = None
            if config is None or options:
                with self._declaring:  # processes in turn, with what the store says then
                    self._declare(name, self._queues.queue(name), options)
            queue = self._opened_queue(name)
            if options:
                queue._refresh()
            return queue

    def _opened_queue(self, name: str) -> Queue:
        """The handle on a queue that exists, whoever owns it."""
        with self._queue_lock:
            queue = self._open_queues.get(name)
            if queue is None or queue._closed:
                queue = self._open_queues[name] = Queue(self, name, self._queue_config(name))
                if queue._config.expires is not None:
                    queue._note_use()
            return queue

    def queues(self) -> dict[str, QueueConfig]:
        """The queues and their configuration, in alphabetical order."""
        self._check_open()
        generation = self.catalog_generation
        known, found = self._known_queues
        if known != generation:
            found = self._queues.queues() if self._has_queues() else {}
            self._known_queues = (generation, found)
        return dict(found)

    def delete_queue(self, name: str) -> None:
        """Delete a queue with its messages and bindings. Raises `UnknownQueueError`, `LockedError` (it is exclusive,
        and another broker's)."""
        if self._ownership.check(name, self._queue_config(check_topic_name(name))):
            self._delete_queue(name)

    def _delete_queue(self, name: str) -> None:
        with self._declaring:
            self._queue_config(name)
            queue = self._open_queues.pop(name, None)
            if queue is not None:
                queue.close()
            self._queues.delete_queue(name)
            self.delete_topic(name)
            self._queues.end(name)
            self._catalog_bell.ring()
        self._ownership.release(name)
        self._routing_bell.ring()

    def _declare(self, name: str, config: QueueConfig | None, options: dict[str, Any]) -> None:
        new = (config or QueueConfig()).altered(options)
        if config is not None:
            config.check_change(name, options)
            if new == config:
                return
        elif name in self.topics() and not self._queues.begun(name):
            raise TopicExistsError(
                f"topic {name!r} exists and is not a queue; share_consumer reads it with acknowledgements"
            )
        if new.dead_letter is not None and new.dead_letter != name:
            self._dead_letter_queue(new.dead_letter, new, name)
        elif new.dead_letter == name:
            raise InvalidConfigError(f"dead_letter is {name!r}, the queue itself; give another queue")
        topic_options: dict[str, Any] = {
            "retention_ms": -1 if new.retention is None else round(new.retention * 1000),
            "max_message_bytes": new.max_message_bytes,
            "retention_policy": new.effective_retention_policy,
        }
        self._queues.begin(name)
        with self._topics_lock():
            exists = name in self._catalog.topics()
        if exists and config is None:  # somebody died while making or deleting it: what is there is nobody's
            self.delete_topic(name)
            exists = False
        if exists:
            self.alter_topic(name, **topic_options)
        else:
            self.create_topic(name, partitions=new.partitions, **topic_options)
        if new.exclusive:
            self._ownership.claim(name)
        else:
            self._ownership.release(name)
        self._queues.save_queue(name, new, self.clock.time_ms(), self._incarnation.number)
        self._catalog_bell.ring()
        self._routing_bell.ring()

    def _dead_letter_queue(
        self, name: str, source: QueueConfig, source_name: str | None = None, source_topic: str | None = None
    ) -> Queue:
        """The queue that dead letters go to; made, of the source's type, when it does not exist."""
        config = self.queues().get(name)
        if config is None:
            most = source.max_message_bytes
            if source_topic is not None:
                most = max(most, self._topic_config(source_topic).max_message_bytes)
            return self.queue(
                name, fifo=source.fifo, max_receives=DEAD_LETTER_RECEIVES, retention=None,
                max_message_bytes=min(most + HEADERS_BYTES_MAX, GIB),
            )  # fmt: skip
        if source_name is not None:
            policy = config.redrive_allow_policy
            if policy == "denyAll" or (isinstance(policy, tuple) and source_name not in policy):
                raise InvalidConfigError(
                    f"dead_letter is {name!r}, whose redrive_allow_policy {policy!r} does not allow {source_name!r}"
                )
            if config.fifo != source.fifo:
                raise InvalidConfigError(
                    f"dead_letter is {name!r} with fifo={config.fifo}; a queue with fifo={source.fifo} needs the same"
                )
        return self.queue(name)

    def _queue_config(self, name: str) -> QueueConfig:
        config = self.queues().get(name)
        if config is None:
            raise UnknownQueueError(f"queue {name!r} does not exist")
        return config

    def _existing_queue(self, name: str) -> Queue:
        self._queue_config(check_topic_name(name))
        return self.queue(name)

    @property
    def _queues(self) -> QueueStore:
        self._check_open()
        store = self._queue_store
        if store is None:
            with self._queue_lock:
                if self._queue_store is None:
                    self._queue_store = QueueStore(self.path)
                store = self._queue_store
        return store

    def _has_queues(self) -> bool:
        return self._queue_store is not None or (self.path / "queues.sqlite3").exists()

    # --- share groups ----------------------------------------------------------------------------------------------

    def share_consumer(
        self,
        topic: str,
        group: str,
        auto_offset_reset: str | int = "earliest",
        key_ordered: bool = False,
        visibility_timeout: float = 30.0,
        max_receives: int | None = 5,
        dead_letter: str | None = None,
        **options: Any,
    ) -> ShareGroup:
        """A consumer of a share group (KIP-932) over any topic: its members share the messages, each delivered until
        it is acknowledged; several groups each see them all.

        `auto_offset_reset`: where a group that is new begins: "earliest" (default), "latest", or an offset (in each
        partition). `key_ordered`:
        messages of one key are given out one after another, in their order (Pulsar's Key_Shared); fixed when the
        group is made. Further
        options: those of `QueueConfig` that have to do with receiving. Raises `UnknownTopicError`,
        `InvalidConfigError`.
        """
        topic, group = check_topic_name(topic), check_topic_name(group)
        self._topic_config(topic)
        offset = auto_offset_reset if type(auto_offset_reset) is int else -1
        if auto_offset_reset not in ("earliest", "latest") and not 0 <= offset <= OFFSET_MAX:
            raise InvalidConfigError(
                f"auto_offset_reset is {auto_offset_reset!r}; allowed are 'earliest', 'latest' and 0 to {OFFSET_MAX}"
            )
        config = QueueConfig().altered(
            {
                "visibility_timeout": visibility_timeout,
                "max_receives": max_receives,
                "dead_letter": dead_letter,
                "fifo": key_ordered,
                **options,
            }
        )
        check_group(self, topic, group)
        return ShareGroup(self, topic, group, config, auto_offset_reset)

    def share_groups(self, topic: str) -> list[str]:
        """Names of the share groups of a topic."""
        return groups_of(self._log(topic, 0)) if self._topic_config(check_topic_name(topic)) else []

    def delete_share_group(self, topic: str, group: str) -> None:
        """Forget a share group's state; consumers of it have to be closed before.

        Raises `UnknownQueueError` (the topic has no such group), `InvalidArgumentError` (it is a queue's own).
        """
        if group not in self.share_groups(topic):
            raise UnknownQueueError(f"topic {topic!r} has no share group {group!r}")
        if topic in self.queues() and topic == group:
            raise InvalidArgumentError(f"group is {group!r}, which is the queue's own; delete the queue instead")
        for number in range(self._topic_config(topic).partitions):
            shutil.rmtree(self.path / f"{topic}-{number}" / f"{PREFIX}{group}", ignore_errors=True)
        if self._metrics_store is not None:
            self._metrics_store.retire(self.clock.time_ms(), topic, group)

    # --- exchanges -------------------------------------------------------------------------------------------------

    def exchange(self, name: str, type: str | None = None, alternate: str | Exchange | None = None) -> Exchange:
        """The exchange of this name; made when `type` is given (direct, fanout, topic, headers, consistent-hash).

        `""` is the default exchange: its routing key is a queue's name. `alternate`: the exchange for what matches
        nothing. Raises `UnknownExchangeError` (no `type`, and it does not exist), `InvalidConfigError` (it is of
        another type).
        """
        self._check_open()
        if name == "":
            return Exchange(self, "", "direct", None)
        check_topic_name(name)
        if type is not None and type not in EXCHANGE_TYPES:
            raise InvalidConfigError(f"type is {type!r}; allowed are {', '.join(map(repr, EXCHANGE_TYPES))}")
        other = alternate.name if isinstance(alternate, Exchange) else alternate
        if other is not None:
            check_topic_name(other)
        rows = self._queues.read("SELECT type, alternate FROM exchanges WHERE name = ?", name)
        if not rows:
            if type is None:
                raise UnknownExchangeError(f"exchange {name!r} does not exist; give a type to make it")
            self._queues.write("INSERT OR IGNORE INTO exchanges VALUES (?, ?, ?)", name, type, other)
            self._routing_bell.ring()
            rows = self._queues.read("SELECT type, alternate FROM exchanges WHERE name = ?", name)
        kind, known = rows[0]
        if type is not None and type != kind:
            raise InvalidConfigError(f"type is {type!r}; exchange {name!r} exists and is {kind!r}")
        if other is not None and other != known:
            self._queues.write("UPDATE exchanges SET alternate = ? WHERE name = ?", other, name)
            self._routing_bell.ring()
            known = other
        return Exchange(self, name, kind, known)

    def exchanges(self) -> dict[str, str]:
        """Names and types of the exchanges, in alphabetical order."""
        self._check_open()
        return dict(self._queues.read("SELECT name, type FROM exchanges ORDER BY name")) if self._has_queues() else {}

    def delete_exchange(self, name: str) -> None:
        """Delete an exchange with its bindings, also those to it. Raises `UnknownExchangeError`."""
        check_topic_name(name)
        with self._queues.transaction() as connection:
            if not connection.execute("DELETE FROM exchanges WHERE name = ?", (name,)).rowcount:
                raise UnknownExchangeError(f"exchange {name!r} does not exist")
            connection.execute(
                "DELETE FROM bindings WHERE exchange = ? OR (kind = 'exchange' AND target = ?)", (name, name)
            )
        self._routing_bell.ring()

    @property
    def _routing_generation(self) -> tuple[int, int]:
        return self._routing_bell.value, self.catalog_generation

    def _router(self) -> Router:
        generation = self._routing_generation
        known = self._known_router
        if known is None or known[0] != generation:
            self._senders = {}
            known = self._known_router = (generation, Router(self._queues))
        return known[1]

    def _sender(self, kind: str, name: str) -> Any:
        """What stores a message in a queue or topic, with the arguments of `Queue.send`."""
        send = self._senders.get((kind, name))
        if send is None:
            send = self._opened_queue(name).send if kind == "queue" else _TopicSender(self, name)
            self._senders[kind, name] = send
        return send

    def _plain_append(self, kind: str, name: str) -> tuple[Any, str]:
        """`Topic.append` and the prefix of message ids of a queue without limits and defaults; or (None, "")."""
        queue = self._opened_queue(name) if kind == "queue" else None
        return (queue._append, queue._id_prefix) if queue is not None and queue._plain else (None, "")

    # --- schedules -------------------------------------------------------------------------------------------------

    def schedule(
        self, name: str, target: Queue | Exchange, body: bytes, cron: str, routing_key: str = "", headers: Any = None
    ) -> Schedule:
        """Send `body` to a queue (or publish it to an exchange) at every time that `cron` names, in UTC, once each.

        `cron`: five fields, or six with seconds first. What was due while no process had the directory open is made
        up for by one message. The processes that have it open choose who does it. A schedule of this name is
        replaced. Needs the extra `schedule` (croniter).
        """
        return self._schedules.add(name, target, body, cron, routing_key, headers)

    def schedules(self) -> list[Schedule]:
        """The schedules of this directory, by name."""
        return self._schedules.list()

    def delete_schedule(self, name: str) -> None:
        """End a schedule. Raises `InvalidArgumentError` (unknown)."""
        self._schedules.delete(name)

    # --- upkeep ----------------------------------------------------------------------------------------------------

    def maintain(self) -> bool:
        """Delete what is past its retention, expire messages and unused queues, now. One process does it at a time."""
        if not super().maintain():
            return False
        if self._has_queues():
            self._ownership.delete_abandoned()
        for name, config in self.queues().items():
            if name not in self._open_queues and not config.needs_upkeep:
                continue
            try:
                self._opened_queue(name)._maintain()
            except (UnknownTopicError, UnknownQueueError):
                continue  # deleted at this moment
        for name, topic in self._configs().items():
            try:
                trim(self, name, topic.retention_policy)
            except UnknownTopicError:
                continue  # likewise
        return True

    def _filled(self, log: PartitionLog) -> None:
        super()._filled(log)
        trim_partition(self, log)

    def sync(self) -> None:
        """Everything this process stored and settled is on the disk when this returns."""
        super().sync()
        for handle in list(self._handles):
            if isinstance(handle, ShareGroup):
                handle.sync()

    def close(self) -> None:
        """Flush producers, close consumers and queues, sync (unless `fsync="never"`). May be repeated."""
        if not self.closed:
            self._schedules.stop()
            self._ownership.delete_owned()
        try:
            super().close()
        finally:
            if self._queue_store is not None:
                self._queue_store.close()
            self._declaring.close()

    def _make_metrics_reader(self) -> QueueMetricsReader:
        return QueueMetricsReader(self)

    def _after_fork(self) -> None:
        super()._after_fork()
        self._queue_lock = threading.RLock()
        if self._queue_store is not None:
            self._queue_store.after_fork()
        self._schedules.after_fork()
        self._ownership.after_fork()
        self._declaring.after_fork()

    def __reduce__(self) -> tuple[Any, ...]:
        return Broker, (str(self.path.absolute()), *self._settings, None, self._metrics_store is not None)


class _TopicSender:
    """Stores published messages in a topic."""

    def __init__(self, broker: Broker, name: str) -> None:
        self._topic = broker.topic(name)

    def __call__(self, value: Any, headers: Any = None, group_id: str | None = None, **options: Any) -> str:
        if options:
            raise InvalidArgumentError(f"{', '.join(options)}: not for topic {self._topic.name!r}, which is no queue")
        stored = self._topic.append(value, None if group_id is None else group_id.encode(), headers)
        return f"{self._topic.name}-{stored.partition}-{stored.offset}"


def open(
    path: str | os.PathLike[str] = "penstock-data",
    fsync: str = "interval",
    *,
    fsync_interval_ms: int = 1000,
    maintenance_interval_ms: int = 30_000,
    clock: Clock | None = None,
    metrics: bool = True,
) -> Broker:
    """Open (or create) a data directory.

    `fsync`: when stored records are forced to the disk: `never`, `interval` (default, every `fsync_interval_ms`) or
    `always` (before `append` and `flush` return; callers in all threads and processes share one fsync). What survives
    what: see the promises in the documentation. `clock`: a `penstock.VirtualClock` in tests. `metrics`: count what this
    process does, for `Broker.metrics` (default True; it costs 1 to 3 %).

    Raises `DataDirectoryError`, `FormatVersionError`, `InvalidConfigError`.
    """
    return Broker(path, fsync, fsync_interval_ms, maintenance_interval_ms, clock, metrics)
