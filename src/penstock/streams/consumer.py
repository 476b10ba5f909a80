"""The consumer: reads the records of assigned partitions in order, from where the caller wants.

Positions live in this object only (no group). Order: each partition's records come in offset order; partitions take
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
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from penstock._native.fetcher import Fetcher, PartitionReader, native_iteration
from penstock._native.records import DECOMPRESSED_LIMIT_BYTES
from penstock.errors import InvalidArgumentError, InvalidTypeError, OffsetOutOfRangeError, UnknownTopicError
from penstock.streams.offset_reset import OffsetReset
from penstock.streams.record_batch import RecordBatch, record_batches
from penstock.streams.topic_partition import OffsetAndTimestamp, TopicPartition, checked_partition

if TYPE_CHECKING:
    from penstock._native.region import Region
    from penstock.storage.partition_log import PartitionLog
    from penstock.streams.broker import Broker

logger = logging.getLogger("penstock.consumer")

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

    Raises `UnknownTopicError`, `InvalidConfigError`, `InvalidTypeError`.

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
        self._generation = broker.catalog_generation
        wanted = [partition for topic in self._topics for partition in self._partitions_of(topic)]
        self._adopt(wanted, first=True)
        broker._register(self)

    # --- assignment --------------------------------------------------------------------------------------------------

    @_exclusive
    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read exactly these partitions from now on; those assigned before keep their positions. `[]` gives all up.

        Ends the following of whole topics. Raises `UnknownTopicError` (nothing changes then), `InvalidTypeError`.
        """
        if isinstance(partitions, (str, bytes, TopicPartition)) or not isinstance(partitions, Iterable):
            raise InvalidTypeError(f"partitions is {partitions!r}; give a list of TopicPartition")
        self._adopt([checked_partition(partition) for partition in partitions], first=True)
        self._topics = ()

    @_exclusive
    def assignment(self) -> set[TopicPartition]:
        """The partitions this consumer reads now."""
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
        """Records of each assigned partition that are stored and not yet delivered."""
        self._refresh_if_stale()
        return {
            partition: max(0, reader.log.log_end_offset - max(reader.position, reader.log.log_start_offset))
            for partition, reader in self._by_partition.items()
        }

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

        May be called from any thread, any number of times.
        """
        if not self.closed:
            self._close()
            self._by_partition = {}
            self._broker._unregister(self)

    def __enter__(self: _C) -> _C:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else ", ".join(str(partition) for partition in self._by_partition)
        return f"<penstock.Consumer {state}>"

    # --- called by the native half -----------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Follow the catalog: partitions added, topics deleted or made again.

        Raises `UnknownTopicError` if a partition given to `assign` is gone.
        """
        if not self._topics:
            self._adopt(list(self._by_partition), first=False)
            return
        wanted = [partition for topic in self._topics for partition in self._remaining_partitions_of(topic)]
        try:
            self._adopt(wanted, first=False)
        except UnknownTopicError as error:
            logger.info("%s: deleted at this moment; the catalog changed again and is followed once more", error)

    def _subscribed(self) -> bool:
        return bool(self._topics)

    def _split(
        self, region: Region, topic: str, partition: int, from_offset: int, limit_bytes: int
    ) -> list[RecordBatch]:
        return record_batches(region, topic, partition, from_offset, limit_bytes)

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
