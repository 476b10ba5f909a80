"""The consumer: reads the records of assigned partitions in order, from where the caller wants.

Positions live in this object; with a group, committed offsets outlive it, and the group's members share the
partitions (see `group_part`). Order: each partition's records come in offset order; partitions take
turns fetch by fetch. A position is always the offset of the next undelivered record, after any mix of iteration,
`poll`, `poll_batches` and seeks, and after an error or an interrupt.

A damaged batch raises `CorruptionError` each time its partition's turn comes, until a seek passes it; the other
partitions deliver in the calls between.

Thread and process safety: one thread at a time (a second one gets `LockedError`), except `close` and `wakeup`. The
child of a fork carries on from its copy of the positions.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from penstock._native.fetcher import Fetcher, PartitionReader, native_iteration
from penstock._native.records import DECOMPRESSED_LIMIT_BYTES, Record
from penstock.errors import (
    InvalidArgumentError,
    InvalidConfigError,
    InvalidTypeError,
    OffsetOutOfRangeError,
    UnknownTopicError,
)
from penstock.streams.assignors import Assignor
from penstock.streams.group_part import GroupPart, Listeners
from penstock.streams.membership import GroupSettings, Listener, check_group_name
from penstock.streams.offset_reset import OffsetReset
from penstock.streams.record_batch import RecordBatch, record_batches
from penstock.streams.topic_partition import (
    OffsetAndMetadata,
    OffsetAndTimestamp,
    TopicPartition,
    checked_offset,
    checked_partition,
)
from penstock.streams.unread import unread

if TYPE_CHECKING:
    from penstock._native.region import Region
    from penstock.storage.partition_log import PartitionLog
    from penstock.storage.transaction_index import AbortedTransactions
    from penstock.streams.broker import Broker

logger = logging.getLogger("penstock.consumer")

ISOLATION_LEVELS = ("read_uncommitted", "read_committed")
_OFFSET_MAX = 2**63 - 1
_P = ParamSpec("_P")
_R = TypeVar("_R")
_C = TypeVar("_C", bound="Consumer")


def _exclusive(method: Callable[Concatenate[_C, _P], _R]) -> Callable[Concatenate[_C, _P], _R]:
    """The method, refusing a second thread and a closed consumer."""

    @functools.wraps(method)
    def call(self: _C, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        self._enter()
        try:
            return method(self, *args, **kwargs)
        finally:
            self._leave()

    return call


@native_iteration
class Consumer(Fetcher):
    """Reads topics of a broker; made by `broker.consumer(*topics, ...)`.

    - `topics`: read all their partitions, also those added later. Without topics, call `assign`.
    - `auto_offset_reset`: where to start, and where to go on when the position is not in the log any more: "earliest"
      (default), "latest", "by_duration:PT1H" (ISO-8601: as far back as that) or "none" (`OffsetOutOfRangeError`; seek
      first). A partition that is added to a topic later is read from its beginning, also by "latest".
    - `fetch_max_bytes`: stored bytes taken from a partition at a time (default 1 MiB; a larger batch is taken whole).
    - `max_poll_records`: default of `poll(max_records)` (500).
    - `isolation_level`: "read_uncommitted" (default) or "read_committed": only up to the first transaction that is not
      decided, and without the records of aborted ones.
    - `group`: share the topics' partitions with the other consumers of that group, in any process, and start at the
      committed offsets. What follows needs a group (names and defaults as Kafka's):
    - `enable_auto_commit`: each call that asks for records commits those delivered before it, and so does `close`
      (default True). Leaving a `with` block by an exception commits nothing more.
    - `partition_assignment_strategy`: "range", "roundrobin", "sticky", "cooperative-sticky" (default) or a function
      of `Subscriptions`; all members give the same. Whatever the strategy, only partitions that move pause.
    - `group_instance_id`: a static member: its partitions wait for its return until `session_timeout_ms` is over.
    - `session_timeout_ms`: a hung process is out of the group after this (45,000; a dead one at once).
    - `max_poll_interval_ms`: a member that asks for nothing is out of the group after this (300,000).
    - `single_active_consumer`: one member reads everything, the others stand by.
    - `on_assigned(partitions)`, `on_revoked(partitions)`, `on_lost(partitions)`: called by the thread that polls, with
      the list of partitions that come, that go (still owned: the time to commit), and that went without asking.
    - `client_id`: how the member is called in descriptions.

    Raises `UnknownTopicError`, `InvalidConfigError`, `InvalidTypeError`, `FencedError` (a live member has that
    `group_instance_id`).

    `for record in consumer` blocks for more records until `close` is called (by any thread) or the broker is closed,
    and then ends; Ctrl-C raises `KeyboardInterrupt` and loses nothing.
    """

    def __init__(
        self,
        broker: Broker,
        *topics: str,
        auto_offset_reset: str = "earliest",
        fetch_max_bytes: int = 1_048_576,
        max_poll_records: int = 500,
        group: str | None = None,
        enable_auto_commit: bool = True,
        partition_assignment_strategy: str | Assignor = "cooperative-sticky",
        group_instance_id: str | None = None,
        session_timeout_ms: int = 45_000,
        max_poll_interval_ms: int = 300_000,
        single_active_consumer: bool = False,
        on_assigned: Listener | None = None,
        on_revoked: Listener | None = None,
        on_lost: Listener | None = None,
        client_id: str = "consumer",
        isolation_level: str = "read_uncommitted",
    ) -> None:
        self._policy = OffsetReset.parse(auto_offset_reset)
        super().__init__(
            broker,
            _checked_int("fetch_max_bytes", fetch_max_bytes, 1, 2**31 - 1),
            _checked_int("max_poll_records", max_poll_records, 1, 2**31 - 1),
        )
        for topic in topics:
            if not isinstance(topic, str):
                raise InvalidTypeError(f"topic is {topic!r}; give topic names as str, one argument each")
        self._by_partition: dict[TopicPartition, PartitionReader] = {}
        self._topics = tuple(dict.fromkeys(topics))
        self._pattern: re.Pattern[str] | None = None
        if isolation_level not in ISOLATION_LEVELS:
            allowed = " or ".join(map(repr, ISOLATION_LEVELS))
            raise InvalidConfigError(f"isolation_level is {isolation_level!r}; give {allowed}")
        self._committed_only = isolation_level == "read_committed"
        if self._committed_only:
            broker._keeper.token()  # somebody has to finish transactions whose owner died
        self._generation = broker.catalog_generation
        self._part: GroupPart | None = None
        wanted = [partition for topic in self._topics for partition in self._partitions_of(topic)]
        if group is not None:
            settings = GroupSettings(
                check_group_name(group),
                "single-active" if single_active_consumer else partition_assignment_strategy,
                group_instance_id,
                client_id,
                _checked_int("session_timeout_ms", session_timeout_ms, 100, 3_600_000),
                _checked_int("max_poll_interval_ms", max_poll_interval_ms, 1, 2**31 - 1),
                self._committed_only,
            ).checked()
            listeners = Listeners(on_assigned, on_revoked, on_lost)
            self._part = GroupPart(self, settings, bool(enable_auto_commit), listeners)
            if self._topics:
                self._part.subscribe(self._topics)
        else:
            self._adopt(wanted, first=True)
        broker._register(self)

    # --- assignment --------------------------------------------------------------------------------------------------

    @_exclusive
    def subscribe(self, *topics: str, pattern: str | None = None) -> None:
        """Read all partitions of these topics (with a group: the member's share), or of those whose names match.

        `pattern`: a regular expression that the whole name matches; topics made later count as well. Replaces what was
        subscribed or assigned. Raises `UnknownTopicError`, `InvalidArgumentError`.
        """
        if (pattern is None) == (not topics):
            raise InvalidArgumentError(f"topics is {topics!r} and pattern is {pattern!r}; give exactly one of them")
        try:
            compiled = None if pattern is None else re.compile(pattern)
        except (re.error, TypeError) as error:
            raise InvalidArgumentError(f"pattern is {pattern!r}; a regular expression is needed ({error})") from error
        named = tuple(dict.fromkeys(topics))
        wanted = [partition for topic in named for partition in self._partitions_of(topic)]
        self._topics, self._pattern = named, compiled
        if compiled is not None:
            wanted = [partition for topic in self._matching() for partition in self._partitions_of(topic)]
        if self._part is not None:
            self._part.subscribe(self._matching())
        else:
            self._adopt(wanted, first=True)

    @_exclusive
    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read exactly these partitions from now on; those assigned before keep their positions. `[]` gives all up.

        Ends the following of whole topics, and membership: a consumer with a group starts at its committed offsets and
        may commit while the group has no members. Raises `UnknownTopicError` (nothing changes then), `InvalidTypeError`
        """
        if isinstance(partitions, (str, bytes, TopicPartition)) or not isinstance(partitions, Iterable):
            raise InvalidTypeError(f"partitions is {partitions!r}; give a list of TopicPartition")
        wanted = [checked_partition(partition) for partition in partitions]
        if self._part is not None:
            for partition in wanted:
                self._broker._log(*partition)
            self._part.leave(commit=self._part.auto_commit)
        self._adopt(wanted, first=True)
        if self._part is not None:
            self._part.attach(self._by_partition)
        self._topics, self._pattern = (), None

    @_exclusive
    def assignment(self) -> set[TopicPartition]:
        """The partitions this consumer reads now."""
        if self._part is not None and self._part.untouched:
            self._rebalance()
        self._refresh_if_stale()
        return set(self._by_partition)

    @_exclusive
    def pause(self, *partitions: TopicPartition) -> None:
        """Deliver nothing of these assigned partitions (default: all) until `resume`; their positions stay."""
        for reader in self._chosen(partitions):
            self._set_paused(reader, True)

    @_exclusive
    def resume(self, *partitions: TopicPartition) -> None:
        """Deliver these assigned partitions (default: all) again."""
        for reader in self._chosen(partitions):
            self._set_paused(reader, False)

    @_exclusive
    def paused(self) -> set[TopicPartition]:
        """The assigned partitions that are paused."""
        return {partition for partition, reader in self._by_partition.items() if reader.paused}

    # --- positions ---------------------------------------------------------------------------------------------------

    @_exclusive
    def position(self, partition: TopicPartition) -> int:
        """Offset of the next record to be delivered.

        Raises `OffsetOutOfRangeError` when `auto_offset_reset` is "none" and no seek came.
        """
        reader = self._reader(partition)
        if reader.position < 0:
            raise OffsetOutOfRangeError(self._no_position(reader))
        return reader.position

    @_exclusive
    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Continue an assigned partition at `offset` (>= 0).

        If that is not in the log, the next read applies `auto_offset_reset`.
        """
        checked = _checked_int("offset", offset, 0, _OFFSET_MAX)
        self._move(self._reader(partition), checked)

    @_exclusive
    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """Continue these assigned partitions (default: all) at the first offset that can be read now."""
        for reader in self._chosen(partitions):
            self._move(reader, reader.log.log_start_offset)

    @_exclusive
    def seek_to_end(self, *partitions: TopicPartition) -> None:
        """Continue these assigned partitions (default: all) behind the last record stored now."""
        for reader in self._chosen(partitions):
            self._move(reader, reader.log.log_end_offset)

    @_exclusive
    def seek_to_committed(self) -> None:
        """Continue every assigned partition at the group's committed offset, or where `auto_offset_reset` says."""
        part = self._group_part()
        for partition, reader in self._by_partition.items():
            found = part.committed(partition)
            self._move(reader, self._start_offset(reader.log, first=True) if found is None else found.offset)

    @_exclusive
    def seek_to_timestamp(self, partition: TopicPartition, timestamp_ms: int) -> int:
        """Continue at the first record with a timestamp >= `timestamp_ms`, at the end when there is none.

        Returns the offset.
        """
        checked = _checked_int("timestamp_ms", timestamp_ms, 0, _OFFSET_MAX)
        reader = self._reader(partition)
        found = reader.log.offset_for_timestamp(checked)
        offset = int(reader.log.log_end_offset if found is None else found[0])
        self._move(reader, offset)
        return offset

    @_exclusive
    def lag(self) -> dict[TopicPartition, int]:
        """Records of each assigned partition that are stored (with "read_committed": decided) and not yet delivered.

        Records of aborted transactions and markers in between count, but not when nothing comes after them.
        """
        self._refresh_if_stale()
        return {
            partition: unread(reader.log, reader.position, self._committed_only).records
            for partition, reader in self._by_partition.items()
        }

    @_exclusive
    def committed(self, partition: TopicPartition) -> int | None:
        """The group's committed offset of a partition (whoever owns it), or None."""
        found = self._group_part().committed(checked_partition(partition))
        return None if found is None else found.offset

    @_exclusive
    def committed_metadata(self, partition: TopicPartition) -> OffsetAndMetadata | None:
        """The group's committed offset of a partition with its metadata, or None."""
        return self._group_part().committed(checked_partition(partition))

    @property
    def group(self) -> str | None:
        """Name of the group."""
        return None if self._part is None else self._part.settings.group

    @property
    def member_id(self) -> str | None:
        """This member's name in its group; None without one."""
        return None if self._part is None else self._part.member_id

    # --- any partition of the broker ---------------------------------------------------------------------------------

    @_exclusive
    def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """First offset that can be read of each partition, assigned or not. Raises `UnknownTopicError`."""
        checked = [checked_partition(partition) for partition in partitions]
        return {partition: self._broker._log(*partition).log_start_offset for partition in checked}

    @_exclusive
    def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset the next record of each partition will get, assigned or not. Raises `UnknownTopicError`."""
        checked = [checked_partition(partition) for partition in partitions]
        return {partition: self._broker._log(*partition).log_end_offset for partition in checked}

    @_exclusive
    def offsets_for_times(
        self, timestamps_ms: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """First record with a timestamp >= the given one, of each partition, assigned or not; None if there is none."""
        if not isinstance(timestamps_ms, Mapping):
            raise InvalidTypeError(f"timestamps_ms is {timestamps_ms!r}; give a dict of TopicPartition to int")
        result: dict[TopicPartition, OffsetAndTimestamp | None] = {}
        for partition, timestamp_ms in timestamps_ms.items():
            checked = checked_partition(partition)
            wanted_ms = _checked_int("timestamp_ms", timestamp_ms, 0, _OFFSET_MAX)
            found = self._broker._log(*checked).offset_for_timestamp(wanted_ms)
            result[checked] = None if found is None else OffsetAndTimestamp(*found)
        return result

    # --- life --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back what is held; a thread that is blocked in this consumer wakes up.

        With a group, commits what was delivered (unless `enable_auto_commit` is off) and leaves; a static member's
        partitions wait for its return. May be called from any thread, any number of times.
        """
        self._end(commit=True)

    def _end(self, *, commit: bool) -> None:
        if not self.closed:
            if self._part is not None:
                self._part.leave(commit=commit and self._part.auto_commit)
            self._close()
            self._by_partition = {}
            self._broker._unregister(self)

    def _abandon(self) -> None:
        """Let go without telling the group, which cannot be told now; it is told when it can be."""
        if self._part is not None:
            self._part.abandon()

    def __enter__(self: _C) -> _C:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(commit=kind is None)

    def __repr__(self) -> str:
        state = "closed" if self.closed else ", ".join(str(partition) for partition in self._by_partition)
        return f"<penstock.Consumer {state}>"

    # --- called by the native half -----------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Follow the catalog: partitions added, topics deleted or made again.

        Raises `UnknownTopicError` if a partition given to `assign` is gone.
        """
        if self._part is not None and self._part.member_id is not None:
            self._part.subscribe_again(self._matching())
            kept = [place for place in self._by_partition if self._part.owns(place)]
            self._adopt([place for place in kept if place.topic in self._broker._configs()], first=False)
            return
        if not self._subscribed():
            self._adopt(list(self._by_partition), first=False)
            return
        wanted = [partition for topic in self._matching() for partition in self._remaining_partitions_of(topic)]
        try:
            self._adopt(wanted, first=False)
        except UnknownTopicError as error:
            logger.info("%s: deleted at this moment; the catalog changed again and is followed once more", error)

    def _subscribed(self) -> bool:
        return bool(self._topics) or self._pattern is not None

    def _after_fork(self) -> None:
        super()._after_fork()
        if self._part is not None:
            self._part.after_fork()

    def _matching(self) -> tuple[str, ...]:
        if self._pattern is None:
            return self._topics
        return tuple(name for name in self._broker._configs() if self._pattern.fullmatch(name))

    def _rebalance(self) -> None:
        """The group wants this member to look; called between two deliveries."""
        self._group_part().rebalance()

    @_exclusive
    def _offsets_for_transaction(self) -> list[tuple[int, int, int]]:
        """(cell, claim, position) of every partition; from now on only transactions commit for this consumer."""
        return self._group_part().offsets_for_transaction(list(self._by_partition.values()))

    def _group_part(self) -> GroupPart:
        if self._part is None:
            raise InvalidArgumentError("the consumer has no group: give `group` when making it")
        return self._part

    def _commit_given(self, offsets: Any) -> None:
        """The part of `commit` that is not every consumer's every day."""
        part = self._group_part()
        self._enter()
        try:
            part.commit(self._offsets_to_commit(offsets))
        finally:
            self._leave()

    def _offsets_to_commit(self, offsets: Any) -> dict[TopicPartition, OffsetAndMetadata]:
        if offsets is None:
            return {place: OffsetAndMetadata(r.position) for place, r in self._by_partition.items() if r.position >= 0}
        if isinstance(offsets, Record):
            return {TopicPartition(offsets.topic, offsets.partition): OffsetAndMetadata(offsets.offset + 1)}
        if not isinstance(offsets, Mapping):
            raise InvalidTypeError(f"offsets is {offsets!r}; give a dict of TopicPartition to int, a Record, or None")
        return {checked_partition(place): checked_offset(given) for place, given in offsets.items()}

    def _split(
        self,
        region: Region,
        topic: str,
        partition: int,
        from_offset: int,
        limit_bytes: int,
        aborted: AbortedTransactions | None,
    ) -> list[RecordBatch]:
        return record_batches(region, topic, partition, from_offset, limit_bytes, aborted)

    def _out_of_range(self, reader: PartitionReader) -> None:
        """Apply the policy to a reader whose position is not in the log."""
        log, asked = reader.log, reader.position
        allowed = f"{log.log_start_offset} to {log.log_end_offset}"
        offset = self._policy.start_offset(log, self._clock)
        if offset is None:
            if asked < 0:
                raise OffsetOutOfRangeError(self._no_position(reader))
            raise OffsetOutOfRangeError(f"offset {asked} of {reader.partition} is not in the log: allowed is {allowed}")
        logger.warning(
            "offset %d of %s is not in the log (%s); continuing at %d (%s)",
            asked, reader.partition, allowed, offset, self._policy.text,
            extra={"topic": log.topic, "partition": log.number, "offset": asked, "group": self.group},
        )  # fmt: skip
        self._move(reader, offset)

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _adopt(self, wanted: list[TopicPartition], *, first: bool) -> None:
        """Make `wanted` the assignment. `first`: the caller names them, so the policy says where to start."""
        readers: dict[TopicPartition, PartitionReader] = {}
        for partition in wanted:
            log = self._broker._log(partition.topic, partition.partition)
            known = self._by_partition.get(partition)
            if known is not None and known.log is log:
                readers[partition] = known
            elif known is not None and not known.log.deleted:
                readers[partition] = PartitionReader(partition, log, known.position, _decompressed_limit_bytes(log))
                self._set_paused(readers[partition], known.paused)
            else:
                offset = self._start_offset(log, first=first)
                readers[partition] = PartitionReader(partition, log, offset, _decompressed_limit_bytes(log))
        self._by_partition = readers
        self._set_readers(list(readers.values()))

    def _start_at(self, partition: TopicPartition, offset: int) -> None:
        """Begin to read a partition at a committed offset, or where the policy says (-1)."""
        log = self._broker._log(*partition)
        start = offset if offset >= 0 else self._start_offset(log, first=True)
        readers = {
            **self._by_partition,
            partition: PartitionReader(partition, log, start, _decompressed_limit_bytes(log)),
        }
        self._by_partition = readers
        self._set_readers(list(readers.values()))

    def _stop_reading(self, partitions: Iterable[TopicPartition]) -> None:
        gone = set(partitions)
        self._by_partition = {place: reader for place, reader in self._by_partition.items() if place not in gone}
        self._set_readers(list(self._by_partition.values()))

    def _start_offset(self, log: PartitionLog, *, first: bool) -> int:
        if self._policy.text == "latest" and not first:
            return log.log_start_offset  # everything in it came after this consumer
        offset = self._policy.start_offset(log, self._clock)
        return -1 if offset is None else offset

    def _partitions_of(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for number in range(self._broker._topic_config(topic).partitions)]

    def _remaining_partitions_of(self, topic: str) -> list[TopicPartition]:
        try:
            return self._partitions_of(topic)
        except UnknownTopicError:
            logger.warning("topic %s was deleted; its partitions are given up until it is made again", topic)
            return []

    def _reader(self, partition: TopicPartition) -> PartitionReader:
        checked = checked_partition(partition)
        self._refresh_if_stale()
        reader = self._by_partition.get(checked)
        if reader is None:
            self._broker._log(*checked)  # raises UnknownTopicError when it does not exist at all
            assigned = ", ".join(map(str, self._by_partition)) or "none"
            raise InvalidArgumentError(f"partition {checked} is not assigned; assigned: {assigned}")
        return reader

    def _chosen(self, partitions: tuple[TopicPartition, ...]) -> list[PartitionReader]:
        if not partitions:
            return list(self._by_partition.values())
        return [self._reader(partition) for partition in partitions]

    def _no_position(self, reader: PartitionReader) -> str:
        log = reader.log
        return (
            f"{reader.partition} has no position and auto_offset_reset is 'none': seek first; "
            f"allowed is {log.log_start_offset} to {log.log_end_offset}"
        )


def _checked_int(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"{name} is {value!r}; give an int from {low} to {high}")
    if not low <= value <= high:
        raise InvalidArgumentError(f"{name} is {value}; give an int from {low} to {high}")
    return value


def _decompressed_limit_bytes(log: PartitionLog) -> int:
    return DECOMPRESSED_LIMIT_BYTES + log.config.max_message_bytes
