"""Takes a snapshot of the counters that all processes share, and of what the logs and groups hold now.

Cheap: the counters are one file, copied whole; of a partition that this process has not open only the control file is
looked at; sizes and timestamps are remembered until what they depend on changes. Thread safety: one snapshot at a time.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from penstock._native.control_state import read_control
from penstock._native.metrics import ERRORS, GROUP, PARTITION, SLOT_WORDS, WORDS, MetricsFile
from penstock.errors import CorruptionError, OffsetOutOfRangeError, UnknownTopicError
from penstock.metrics import (
    GroupMetrics,
    GroupPartitionMetrics,
    Metrics,
    PartitionMetrics,
    ProducerMetrics,
    TopicMetrics,
)
from penstock.metrics.snapshot import NOTHING
from penstock.storage.metrics_store import METRICS_FILE
from penstock.storage.segment_file import bases_in, segment_path
from penstock.streams.group_admin import record_timestamp_ms
from penstock.streams.unread import unread

if TYPE_CHECKING:
    from penstock.storage.topic_config import TopicConfig
    from penstock.streams.broker import Broker

_log = logging.getLogger("penstock.metrics")
_COUNTERS = (
    "records_in",
    "bytes_in",
    "batches_in",
    "saved_bytes",
    "records_out",
    "bytes_out",
    "fetches",
    "polls",
    "syncs",
)
_COLUMNS = [WORDS[PARTITION][name] for name in (*_COUNTERS, *ERRORS, "seen_end")]
_KEPT = len(_COUNTERS)
_FIRST_COUNTER = min(WORDS[PARTITION].values())
_EMPTY = {"log_start_offset": 0, "log_end_offset": 0, "active_base_offset": 0, "end_position": 0, "generation": 0}
Words = NDArray[np.int64]
States = dict[tuple[str, int], dict[str, Any]]


def _file_of(broker: Broker) -> MetricsFile | None:
    """What others count can be read also by who does not count."""
    if broker._metrics_store is not None:
        return broker._metrics_store.file
    path = broker.path / METRICS_FILE
    return MetricsFile(str(path)) if path.exists() else None


class Counters:
    """The shared counters at one moment, by what they are for."""

    def __init__(self, broker: Broker) -> None:
        file = _file_of(broker)
        self.words: Words = np.zeros((1, SLOT_WORDS), np.int64)
        self.slots: dict[tuple[int, str, int, str], int] = {}
        if file is not None and (copied := file.read()):
            self.words = np.frombuffer(copied, np.int64).reshape(-1, SLOT_WORDS)
            for slot, kind, topic, number, group in file.names(1, len(self.words)):
                self.slots[kind, topic, number, group] = slot

    def of(self, kind: int, topic: str, number: int, group: str = "") -> Words:
        """The words of one slot; zeros when there is none."""
        slot = self.slots.get((kind, topic, number, group))
        return NOTHING if slot is None else self.words[slot]


def total_of(rows: list[Words]) -> Words:
    """The sums over partitions; what is no counter is that of the first."""
    if len(rows) == 1:
        return rows[0]
    total: Words = np.add.reduce(rows)
    total[:_FIRST_COUNTER] = rows[0][:_FIRST_COUNTER]
    return total


class MetricsReader:
    """Takes snapshots of a broker's directory; see `Broker.metrics`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.lock = threading.Lock()
        self._generation = -1
        self._sizes: dict[tuple[str, int], tuple[int, int]] = {}
        self._following: dict[tuple[str, str, int], tuple[int, int, float | None]] = {}

    def read(self) -> Metrics:
        """A snapshot now."""
        return self._read(Counters(self._broker))

    def _read(self, counters: Counters) -> Metrics:
        broker = self._broker
        configs = broker._configs()
        if self._generation != broker.catalog_generation:
            self._forget()
            self._generation = broker.catalog_generation
        states = {
            (name, number): self._state(name, number)
            for name, config in configs.items()
            for number in range(config.partitions)
        }
        return Metrics(
            timestamp_ms=broker.clock.time_ms(),
            monotonic_s=broker.clock.monotonic(),
            topics={name: self._topic(name, config, states, counters) for name, config in configs.items()},
            groups=self._groups(states, counters),
            queues={},
            share_groups={},
            producers=tuple(
                ProducerMetrics(one.producer_id, one.buffered_records, one.buffered_bytes)
                for one in list(broker._producers)
            ),
        )

    def _forget(self) -> None:
        """Topics came or went; one of the same name may be another."""
        self._sizes.clear()
        self._following.clear()

    # --- topics ----------------------------------------------------------------------------------------------------

    def _state(self, name: str, number: int) -> dict[str, Any]:
        broker = self._broker
        log = broker._logs.get((name, number))
        if log is not None:
            return log._state()
        directory = broker.path / f"{name}-{number}"
        state = read_control(str(directory / "penstock.control"))
        if state is None or state["incarnation"] == broker._incarnation.number:
            return state or _EMPTY
        try:
            return broker._log(
                name, number
            )._state()  # nobody has opened it since all processes ended: it may need recovery
        except UnknownTopicError:
            return _EMPTY

    def _size_bytes(self, place: tuple[str, int], state: dict[str, Any]) -> int:
        generation, sealed = self._sizes.get(place, (-1, 0))
        if generation != state["generation"]:
            directory = self._broker.path / f"{place[0]}-{place[1]}"
            sealed = 0
            try:
                for base in bases_in(directory):
                    if base < state["active_base_offset"]:
                        sealed += segment_path(directory, base, ".log").stat().st_size
                self._sizes[place] = (state["generation"], sealed)
            except FileNotFoundError:  # retention, or a deletion, is at it: the next snapshot looks again
                _log.debug("segments of %s-%d changed while they were looked at", *place)
        return sealed + int(state["end_position"])

    def _topic(self, name: str, config: TopicConfig, states: States, counters: Counters) -> TopicMetrics:
        rows = [counters.of(PARTITION, name, number) for number in range(config.partitions)]
        partitions = tuple(
            self._partition(name, number, states[name, number], words) for number, words in enumerate(rows)
        )
        total = total_of(rows)
        common: dict[str, Any] = {field: sum(getattr(one, field) for one in partitions) for field in _SUMMED}
        errors = {kind: sum(one.errors[kind] for one in partitions) for kind in ERRORS}
        records = sum(one.log_end_offset - one.log_start_offset for one in partitions)
        return TopicMetrics(errors=errors, words=total, name=name, records=records, partitions=partitions, **common)

    def _partition(self, name: str, number: int, state: dict[str, Any], words: Words) -> PartitionMetrics:
        found = words[_COLUMNS].tolist()
        errors = dict(zip(ERRORS, found[_KEPT:-1], strict=True))
        records_in, end = found[0], state["log_end_offset"]
        if 0 <= found[-1] < end and words is not NOTHING:
            records_in += end - found[-1]  # stored by one who died before it was counted
        common: dict[str, Any] = dict(zip(_SUMMED[2:], found[1:_KEPT], strict=True))
        return PartitionMetrics(
            size_bytes=self._size_bytes((name, number), state),
            records_appended=records_in,
            errors=errors,
            words=words,
            topic=name,
            partition=number,
            log_start_offset=state["log_start_offset"],
            log_end_offset=end,
            **common,
        )

    # --- groups ----------------------------------------------------------------------------------------------------

    def _groups(self, states: States, counters: Counters) -> dict[str, GroupMetrics]:
        store = self._broker._groups
        members = dict(store.rows("SELECT group_id, count(*) FROM members GROUP BY group_id"))
        rows: dict[int, list[tuple[Any, ...]]] = {}
        for row in store.rows("SELECT group_id, topic, number, cell, owner FROM partitions ORDER BY topic, number"):
            rows.setdefault(row[0], []).append(row)
        now_ms = self._broker.clock.time_ms()
        found = {}
        for group_id, name, generation in store.rows("SELECT id, name, generation FROM groups ORDER BY name"):
            words = counters.of(GROUP, "", 0, name)
            committed_only = bool(rows.get(group_id)) and store.reads_committed(group_id)
            partitions = [
                self._group_partition(name, row, states, now_ms, committed_only) for row in rows.get(group_id, ())
            ]
            found[name] = GroupMetrics(
                name,
                members.get(group_id, 0),
                generation,
                int(words[WORDS[GROUP]["commits"]]),
                int(words[WORDS[GROUP]["refused"]]),
                tuple(one for one in partitions if one is not None),
            )
        return found

    def _group_partition(
        self, group: str, row: tuple[Any, ...], states: States, now_ms: int, committed_only: bool
    ) -> GroupPartitionMetrics | None:
        _, topic, number, cell, owner = row
        state = states.get((topic, number))
        if state is None:
            return None  # the topic was deleted at this moment
        offset = self._broker._groups.commits.offset(cell)
        end = state["log_end_offset"]
        lag, lag_s = 0, 0.0 if max(offset, state["log_start_offset"]) >= end else None
        if lag_s is None:
            lag, stored_ms = self._unread((group, topic, number), offset, end, committed_only)
            if stored_ms is not None:
                lag_s = max(0.0, (now_ms - stored_ms) / 1000) if lag else 0.0
        return GroupPartitionMetrics(topic, number, offset if offset >= 0 else None, end, lag, lag_s, owner)

    def _unread(
        self, reader: tuple[str, str, int], position: int, end: int, committed_only: bool
    ) -> tuple[int, float | None]:
        """How many records a group has before it, and when the next of them was stored (None: it cannot be read)."""
        known = self._following.get(reader)
        if known is not None and known[0] == position and known[1] < end and not committed_only:
            return end - known[1], known[2]
        stored_ms: float | None = None
        following = max(position, 0)
        records = end - following
        try:
            log = self._broker._log(reader[1], reader[2])
            left = unread(log, position, committed_only)
            records, following = left.records, left.offset
            stored_ms = record_timestamp_ms(log, following) if records else 0.0
        except (CorruptionError, OffsetOutOfRangeError, UnknownTopicError) as error:
            _log.debug("the age of offset %d of %s-%d is not known: %s", following, *reader[1:], error)
        if records:
            self._following[reader] = (position, following, stored_ms)
        return records, stored_ms


_SUMMED = (
    "size_bytes", "records_appended", "bytes_appended", "batches_appended", "bytes_saved", "records_read", "bytes_read",
    "fetches", "polls", "syncs",
)  # fmt: skip
