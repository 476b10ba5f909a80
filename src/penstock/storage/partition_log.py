"""The segments of one partition: opening, rolling, deleting, finding.

Files, in `<topic>-<partition>/`: `<20-digit base offset>.log`, `.index`, `.timeindex` as Kafka's, and
`penstock.control`. Invariants: segments are contiguous; only the last one (the active) is written; a sealed file has
exactly its data's size.
Thread and process safety: any number of both; what changes the list of segments holds the writer lock.
Crash policy: the list of segments is what the published state says; files past it are strays of an unfinished roll and
are removed by the next one. Recovery is in `recovery`.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from penstock._native.bell import Bells
from penstock._native.builder import BatchBuilder
from penstock._native.log_region import LogRegion
from penstock._native.mapping import Mapping, os_error
from penstock._native.partition import Partition
from penstock._native.read_segment import ReadSegment
from penstock._native.records import RecordCursor
from penstock._native.words import OpenTransactions
from penstock.errors import CorruptionError, InvalidTypeError, OffsetOutOfRangeError, UnknownTopicError
from penstock.storage.recovery import Incarnation, alone, make_ready
from penstock.storage.segment_file import (
    CONTROL_FILE,
    INDEX_BYTES,
    SUFFIXES,
    TIME_INDEX_BYTES,
    TRANSACTIONS_FILE,
    bases_in,
    has_file,
    segment_file_size,
    segment_path,
    sync_directory,
)
from penstock.storage.topic_config import TopicConfig
from penstock.storage.transaction_index import SUFFIX as TRANSACTION_INDEX
from penstock.storage.transaction_index import (
    AbortedTransaction,
    AbortedTransactions,
    append_entry,
    read_entries,
)

READ_SEGMENTS = 32  # maps kept for readers that jump about
TIME_SEEK_BYTES = 1 << 20
LAST_OFFSET = 2**63 - 1
UNKNOWN_MS = 2**62  # newer than any timestamp


class PartitionLog(Partition):
    """An open partition. `configure` applies a topic configuration; `close` trims what was preallocated."""

    def __init__(
        self,
        directory: Path,
        topic: str,
        number: int,
        bells: Bells,
        config: TopicConfig,
        incarnation: Incarnation,
        on_roll: Callable[[PartitionLog], None] | None = None,
        on_full: Callable[[PartitionLog], None] | None = None,
    ) -> None:
        self.directory = directory
        self.config = config
        self._on_roll = on_roll
        self._on_full = on_full
        self._generation = -1
        self._bases: list[int] = []
        self._segments: dict[int, ReadSegment] = {}
        self._max_timestamps: dict[int, int] = {}
        self._aborted: tuple[int, list[AbortedTransaction]] = (0, [])
        self.entry = f"{topic}\t{number}\n".encode()
        """Names the partition in the record of a transaction."""
        with alone(directory) as fd:
            super().__init__(topic, number, f"{directory}/{CONTROL_FILE}", bells, 0)
            make_ready(self, directory, fd, incarnation)
        if has_file(directory, TRANSACTIONS_FILE):
            self._load_transactions()
            self._mark_transactional()
        self.configure(config)

    def configure(self, config: TopicConfig) -> None:
        """Use this configuration from now on."""
        self.config = config
        self.__class__ = CompactedLog if config.compacts else PartitionLog
        self._set_limits(config.segment_bytes, config.segment_ms, config.full_bytes)

    # --- writing ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[dict[str, Any]]:
        self._lock()
        try:
            if self.deleted:
                raise UnknownTopicError(f"topic {self.topic!r} was deleted")
            yield self._state()
        finally:
            self._unlock()

    def _refresh_writer(self, batch_bytes: int) -> None:
        """Map the active segment for writing, with room for a batch of `batch_bytes`."""
        with self._locked() as state:
            self._map_writer(state["active_base_offset"], state["end_position"] + batch_bytes)

    def _map_writer(self, base: int, least_bytes: int, create: bool = False) -> None:
        size = max(self.config.segment_bytes, least_bytes)
        entries = size // 4096 + 1
        lengths = (size, entries * INDEX_BYTES, entries * TIME_INDEX_BYTES)
        maps = [
            Mapping(str(segment_path(self.directory, base, suffix)), length, True, create)
            for suffix, length in zip(SUFFIXES, lengths, strict=True)
        ]
        log, index, time_index = maps
        self._set_writer(log, index, time_index, base)

    def _roll(self, base: int, batch_bytes: int) -> None:
        """Seal the active segment (if it still is `base`) and begin the next one."""
        with self._locked() as state:
            if state["active_base_offset"] != base or state["end_position"] == 0:
                return
            self._roll_locked(state, batch_bytes)
        if self._on_roll is not None:
            self._on_roll(self)

    def _roll_locked(self, state: dict[str, Any], batch_bytes: int) -> None:
        new_base: int = state["log_end_offset"]
        if self._writer_base() != state["active_base_offset"]:
            self._map_writer(state["active_base_offset"], state["end_position"])
        self._remove_strays(state["active_base_offset"])
        for suffix in SUFFIXES:
            _create_empty(segment_path(self.directory, new_base, suffix))
        self._seal(state)
        self._set_allocated(0, 0, 0)
        self._publish(
            {
                "active_base_offset": new_base,
                "end_position": 0,
                "index_entries": 0,
                "time_index_entries": 0,
                "bytes_since_index": 0,
                "max_timestamp_ms": -1,
                "max_timestamp_offset": new_base,
                "first_timestamp_ms": -1,
                "last_indexed_timestamp_ms": -1,
                "generation": state["generation"] + 1,
            }
        )
        self._map_writer(new_base, batch_bytes)
        if self.sync_each:
            sync_directory(self.directory)

    def _count_bytes(self) -> None:
        """Count what lies before the active segment, for writers who may have to refuse."""
        while True:
            state = self._state()
            try:
                found = self._bytes_before_active(state)
            except (FileNotFoundError, OffsetOutOfRangeError):
                if _same_extent(state, self._state()):
                    raise
                continue  # retention or compaction came between
            with self._locked() as now:
                if _same_extent(state, now):
                    self._set_counted(state["generation"], state["log_start_offset"], found)
                    return

    def _bytes_before_active(self, state: dict[str, Any]) -> int:
        """Bytes of batches from the log start up to the active segment; less than 0 when the start is inside that."""
        start: int = state["log_start_offset"]
        active: int = state["active_base_offset"]
        if start == state["log_end_offset"]:
            return -int(state["end_position"])
        bases = [base for base in bases_in(self.directory) if base <= active]
        first = bases[max(bisect.bisect_right(bases, start) - 1, 0)]
        position = 0
        if first < start:
            region = self.fetch(start, 1)
            if region is not None:
                first, position = region.segment.base_offset, region.position
        sizes = [segment_path(self.directory, base, ".log").stat().st_size for base in bases if first <= base < active]
        return sum(sizes) - position

    def _make_room(self) -> bool:
        """The partition is full: delete what need not be kept. Whether anything was."""
        before = self._state()
        if self._on_full is not None:
            self._on_full(self)
        return not _same_extent(before, self._state())

    def _seal(self, state: dict[str, Any]) -> None:
        """Complete the time index and cut the active segment's files to their data. Requires the writer lock."""
        base = state["active_base_offset"]
        entries = state["time_index_entries"]
        if state["max_timestamp_ms"] > state["last_indexed_timestamp_ms"]:
            entry = state["max_timestamp_ms"].to_bytes(8, "big", signed=True)
            entry += (state["max_timestamp_offset"] - base).to_bytes(4, "big")
            _write_at(segment_path(self.directory, base, ".timeindex"), entries * TIME_INDEX_BYTES, entry)
            entries += 1
        sizes = (state["end_position"], state["index_entries"] * INDEX_BYTES, entries * TIME_INDEX_BYTES)
        self._set_allocated(*sizes)
        for suffix, size in zip(SUFFIXES, sizes, strict=True):
            os.truncate(segment_path(self.directory, base, suffix), size)

    def _remove_strays(self, active_base: int) -> None:
        for base in bases_in(self.directory):
            if base > active_base:
                for suffix in SUFFIXES:
                    segment_path(self.directory, base, suffix).unlink(missing_ok=True)

    def trim(self) -> None:
        """Give preallocated room back, so that the files are exactly what Kafka's tools expect."""
        if self.deleted:
            return
        with self._locked() as state:
            log, index, time_index = self._allocated()
            wanted = (
                state["end_position"],
                state["index_entries"] * INDEX_BYTES,
                state["time_index_entries"] * TIME_INDEX_BYTES,
            )
            if (log, index, time_index) == wanted:
                return
            self._set_allocated(*(min(a, b) for a, b in zip((log, index, time_index), wanted, strict=True)))
            for suffix, size in zip(SUFFIXES, wanted, strict=True):
                path = segment_path(self.directory, state["active_base_offset"], suffix)
                if path.stat().st_size > size:
                    os.truncate(path, size)

    # --- syncing ---------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Everything stored so far is on the disk when this returns."""
        self.sync_to(self.log_end_offset)

    def _sync_segments(self, synced_offset: int, active_base: int) -> None:
        """Sync every segment that may hold records at or after `synced_offset`, and the directory."""
        bases = [base for base in bases_in(self.directory) if base <= active_base]
        first = max(bisect.bisect_right(bases, synced_offset) - 1, 0)
        for base in bases[first:]:
            for suffix in SUFFIXES:
                with contextlib.suppress(FileNotFoundError):  # retention may have removed it meanwhile
                    _sync_file(segment_path(self.directory, base, suffix))
        sync_directory(self.directory)

    # --- finding ---------------------------------------------------------------------------------------------------

    def segments(self) -> list[int]:
        """Base offsets of the segments, oldest first."""
        state = self._state()
        if state["generation"] != self._generation:
            bases = [base for base in bases_in(self.directory) if base <= state["active_base_offset"]]
            keep = set() if self.config.compacts else set(bases[:-1])  # compaction may have replaced any of them
            self._segments = {base: segment for base, segment in self._segments.items() if base in keep}
            if self.config.compacts:
                self._max_timestamps.clear()
            self._bases, self._generation = bases, state["generation"]
        return self._bases

    def _forget_segments(self) -> None:
        """List and open them anew."""
        self._segments.clear()
        self._generation = -1

    def _segment_of(self, offset: int, active_base: int) -> ReadSegment:
        bases = self.segments()
        place = bisect.bisect_right(bases, offset) - 1
        if place < 0:
            raise OffsetOutOfRangeError(f"no segment of {self.topic}-{self.number} holds offset {offset}")
        return self._living_segment(bases[place], offset)

    def _living_segment(self, base: int, offset: int) -> ReadSegment:
        """The segment, unless retention removed it meanwhile: then `offset` is out of range."""
        try:
            return self._read_segment(base)
        except FileNotFoundError as error:
            start = self.log_start_offset
            if offset >= start:
                raise
            raise OffsetOutOfRangeError(
                f"offset {offset} of {self.topic}-{self.number} is not in the log any more: it begins at {start}"
            ) from error

    def _segment_after(self, base: int, active_base: int) -> ReadSegment | None:
        bases = self.segments()
        place = bisect.bisect_right(bases, base)
        return self._living_segment(bases[place], bases[place]) if place < len(bases) else None

    def _reopen_segment(self, base: int) -> ReadSegment:
        self._segments.pop(base, None)
        return self._read_segment(base)

    def _read_segment(self, base: int) -> ReadSegment:
        found = self._segments.get(base)
        if found is not None:
            return found
        if self.config.compacts and base != self._state()["active_base_offset"]:
            self._lock()  # compaction puts a segment's files in place under it
            try:
                return self._open_segment(base)
            finally:
                self._unlock()
        return self._open_segment(base)

    def _open_segment(self, base: int) -> ReadSegment:
        state = self._state()
        path = f"{self.directory}/{base:020d}.log"
        size = segment_file_size(self.directory, base, ".log")
        if size < 0:
            raise os_error(2, path, "opening")
        if base == state["active_base_offset"]:
            size = max(self.config.segment_bytes, state["end_position"])
        segment = ReadSegment(Mapping(path, size), base)
        while len(self._segments) >= READ_SEGMENTS:
            self._segments.pop(next(iter(self._segments)))
        self._segments[base] = segment
        return segment

    def _map_indexes(self, segment: ReadSegment) -> None:
        """Before the first look into the indexes of a segment: map those that are there and belong to its log."""
        self._lock()  # compaction puts a segment's files in place under it
        try:
            maps = self._index_maps(segment)
        finally:
            self._unlock()
        segment.set_indexes(*maps)

    def _index_maps(self, segment: ReadSegment) -> list[Mapping | None]:
        base, state = segment.base_offset, self._state()
        if not _is_file(segment.log, f"{self.directory}/{base:020d}.log"):
            return [None, None]  # what is there now tells of another log
        entries = max(self.config.segment_bytes, state["end_position"]) // 4096 + 1
        maps: list[Mapping | None] = []
        for suffix, width, needed in (
            (".index", INDEX_BYTES, state["index_entries"]),
            (".timeindex", TIME_INDEX_BYTES, state["time_index_entries"]),
        ):
            length = segment_file_size(self.directory, base, suffix)
            if base == state["active_base_offset"]:
                length = entries * width if length >= needed * width else -1
            maps.append(Mapping(f"{self.directory}/{base:020d}{suffix}", length) if length >= 0 else None)
        return maps

    def offset_for_timestamp(self, timestamp_ms: int) -> tuple[int, int] | None:
        """(offset, timestamp) of the first record whose timestamp is >= `timestamp_ms`, or None."""
        if isinstance(timestamp_ms, bool) or not isinstance(timestamp_ms, int):
            raise InvalidTypeError(f"timestamp_ms is {type(timestamp_ms).__name__}; an int of milliseconds is needed")
        while True:
            before = self._state()
            try:
                return self._find_timestamp(timestamp_ms)
            except (FileNotFoundError, OffsetOutOfRangeError):
                now = self._state()
                if all(now[name] == before[name] for name in ("log_start_offset", "generation")):
                    raise  # neither retention nor compaction is what took it

    def _find_timestamp(self, timestamp_ms: int) -> tuple[int, int] | None:
        state = self._state()
        start: int = state["log_start_offset"]
        for base in self.segments():
            if self._newest_timestamp(base, state) < timestamp_ms:
                continue
            segment = self._read_segment(base)
            floor = segment.time_floor(timestamp_ms, self._time_entries(segment), self._index_entries(segment))
            found = self._scan_for_timestamp(max(floor, start), timestamp_ms, state["log_end_offset"])
            if found is not None:
                return found
        return None

    def _newest_timestamp(self, base: int, state: dict[str, Any]) -> int:
        """Largest timestamp in a segment (an upper bound where its time index is missing)."""
        if base == state["active_base_offset"]:
            return int(state["max_timestamp_ms"])
        known = self._max_timestamps.get(base)
        if known is None:
            segment = self._read_segment(base)
            found = segment.last_timestamp_ms(self._time_entries(segment))
            known = UNKNOWN_MS if found is None else found
            self._max_timestamps[base] = known
        return known

    def _scan_for_timestamp(self, offset: int, timestamp_ms: int, end: int) -> tuple[int, int] | None:
        region = None
        while offset < end:
            region = self.fetch(offset, TIME_SEEK_BYTES, region)
            if region is None:
                return None
            place = region.first_batch_at(timestamp_ms)
            if place is not None:
                cursor = RecordCursor(self.topic, self.number)
                cursor.feed(place, offset)
                while (record := cursor.next_record()) is not None:
                    if record.timestamp_ms >= timestamp_ms:
                        return record.offset, record.timestamp_ms
                region = place  # compaction took the record that was as new: on with the batch behind
            offset = region.next_offset
        return None

    # --- transactions ----------------------------------------------------------------------------------------------

    def _load_transactions(self) -> OpenTransactions:
        try:
            self._open_transactions = OpenTransactions(str(self.directory / TRANSACTIONS_FILE))
        except FileNotFoundError as error:
            raise UnknownTopicError(f"topic {self.topic!r} was deleted") from error
        return self._open_transactions

    def end_transaction(self, producer_id: int, marker: BatchBuilder, committed: bool) -> None:
        """Store the marker, then let readers pass. May be repeated after a crash in between."""
        table = self._open_transactions or self._load_transactions()
        first = table.first_offset(producer_id)
        if first < 0:
            return  # an earlier try came this far
        offset = self.append(marker)
        entry = AbortedTransaction(producer_id, first, offset, min(first, self.last_stable_offset))
        bases = self.segments()
        index = segment_path(self.directory, bases[bisect.bisect_right(bases, offset) - 1], TRANSACTION_INDEX)
        self._lock()
        try:
            if not committed:
                append_entry(index, entry)  # under the lock: another producer may abort in the same segment
            table.end(producer_id, not committed)
        finally:
            self._unlock()
        self._ring()
        if self.sync_each:
            table.sync()

    def aborted_in(self, start: int, end: int) -> AbortedTransactions | None:
        """The aborted transactions with records in [start, end), or None."""
        table = self._open_transactions
        if table is None or table.aborts == 0:
            return None
        known, entries = self._aborted
        if known != table.aborts:
            with self._locked():  # compaction merges these files under it
                known = table.aborts
                entries = [
                    entry
                    for base in self.segments()
                    for entry in read_entries(segment_path(self.directory, base, TRANSACTION_INDEX))
                ]
            self._aborted = known, entries
        found = [entry for entry in entries if entry.first_offset < end and entry.last_offset >= start]
        return AbortedTransactions(found) if found else None

    # --- deleting --------------------------------------------------------------------------------------------------

    def size_bytes(self) -> int:
        """Bytes of stored batches."""
        state = self._state()
        total: int = state["end_position"]
        for base in self.segments():
            if base != state["active_base_offset"]:
                with contextlib.suppress(FileNotFoundError):
                    total += segment_path(self.directory, base, ".log").stat().st_size
        return total

    def delete_before(self, offset: int) -> int:
        """Advance the log start to `offset` (as Kafka's DeleteRecords); whole segments below it are removed."""
        with self._locked() as state:
            if not 0 <= offset <= state["log_end_offset"]:
                raise OffsetOutOfRangeError(
                    f"before_offset is {offset}; {self.topic}-{self.number} allows 0 to {state['log_end_offset']}"
                )
            start: int = max(offset, state["log_start_offset"])
            bases = [base for base in bases_in(self.directory) if base <= state["active_base_offset"]]
            dead = [base for base, following in itertools.pairwise(bases) if following <= start]
            if start == state["log_start_offset"] and not dead:
                return start
            generation = state["generation"] + (1 if dead else 0)
            self._publish({"log_start_offset": start, "generation": generation})
            for base in dead:
                for suffix in (*SUFFIXES, TRANSACTION_INDEX):
                    segment_path(self.directory, base, suffix).unlink(missing_ok=True)
                self._max_timestamps.pop(base, None)
        return start

    def roll_active(self) -> None:
        """Begin a new segment now, if the active one holds anything."""
        with self._locked() as state:
            if state["end_position"]:
                self._roll_locked(state, 0)

    # --- closing ---------------------------------------------------------------------------------------------------

    def close(self, durable: bool = True) -> None:
        """Trim and (unless `fsync="never"`) sync what this process wrote, and let go of every map."""
        try:
            if self.written and not self.deleted:
                self.trim()
                if durable:
                    self.sync()
        finally:
            self._clear_writer()
            self._segments.clear()
            self._generation = -1


class CompactedLog(PartitionLog):
    """A partition whose segments compaction may merge: a reader may have to look for its place anew."""

    def fetch(
        self, offset: int, max_bytes: int, after: LogRegion | None = None, until: int = LAST_OFFSET
    ) -> LogRegion | None:
        """See `Partition.fetch`."""
        try:
            return PartitionLog.fetch(self, offset, max_bytes, after, until)
        except (CorruptionError, FileNotFoundError):
            return self._fetch_anew(offset, max_bytes, until)

    def _fetch_anew(self, offset: int, max_bytes: int, until: int) -> LogRegion | None:
        while True:
            generation = self._state()["generation"]
            self._forget_segments()
            try:
                return PartitionLog.fetch(self, offset, max_bytes, None, until)
            except (CorruptionError, FileNotFoundError):
                if self._state()["generation"] == generation:  # it is not compaction
                    raise


def _same_extent(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[name] == other[name] for name in ("generation", "log_start_offset"))


def _is_file(mapping: Mapping, path: str) -> bool:
    """Whether this is what is mapped: not another one that took its name."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return False
    mapped = os.fstat(mapping.fd)
    return (found.st_ino, found.st_dev) == (mapped.st_ino, mapped.st_dev)


def _create_empty(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644))
    except OSError as error:
        raise os_error(error.errno or 0, str(path), "creating") from error


def _write_at(path: Path, position: int, data: bytes) -> None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(fd, data, position)
        finally:
            os.close(fd)
    except OSError as error:
        raise os_error(error.errno or 0, str(path), "writing") from error


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
