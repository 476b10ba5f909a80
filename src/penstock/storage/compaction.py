"""Log compaction: of each key only the newest record stays (Kafka's `cleanup.policy=compact`).

Sealed segments are rewritten one at a time, and neighbours that then fit into one segment become one, under the name of
the first: offsets and their order stay as they are, and a reader goes on in the file that it has mapped. The active
segment is never touched.

Invariants: no offset changes; the newest record of a key stays; nothing from the first undecided transaction on is
touched. Thread and process safety: a file lock lets one thread of one process clean a partition; appending and reading
go on, and wait only while a cleaned log takes its place.
Crash policy: the cleaned log is on the disk before it takes the old one's name; see `segment_swap`. The indexes are
missing in between, which readers bear and the next compaction mends. What was being written when the process died, it
removes.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock._native.compact import Cleaner, KeyMap
from penstock._native.log_region import LogRegion
from penstock._native.mapping import os_error
from penstock._native.records import DECOMPRESSED_LIMIT_BYTES
from penstock.storage.directory import FileLock, replace_file
from penstock.storage.index_file import rebuild_indexes
from penstock.storage.partition_log import UNKNOWN_MS, PartitionLog
from penstock.storage.segment_file import SUFFIXES, segment_file_size, segment_path
from penstock.storage.segment_merge import finish_merge
from penstock.storage.segment_scan import MAX_RELATIVE_OFFSET, scan_segment
from penstock.storage.segment_swap import put_in_place

CHECKPOINT_FILE = "penstock.cleaner"
LOCK_FILE = "penstock.cleaner.lock"
CLEANED = ".cleaned"
MAP_BYTES = 128 << 20
REGION_BYTES = 1 << 20
NOTED_RECORDS = 1 << 28  # 32 MiB of bits; more are left for the next run


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction of one partition did."""

    records_kept: int = 0
    records_removed: int = 0
    bytes_before: int = 0
    bytes_after: int = 0

    def plus(self, cleaned: _Cleaned) -> Compaction:
        """With one more segment."""
        return Compaction(
            self.records_kept + cleaned.kept,
            self.records_removed + cleaned.removed,
            self.bytes_before + cleaned.before,
            self.bytes_after + cleaned.after,
        )


@dataclass(frozen=True, slots=True)
class _Cleaned:
    """What is left of the segment [base, end), in a file beside it. `before`, `after`: bytes."""

    base: int
    end: int
    path: Path
    before: int
    after: int
    kept: int
    removed: int


def compact(log: PartitionLog, now_ms: int, force: bool = False, map_bytes: int = MAP_BYTES) -> Compaction | None:
    """Compact a partition if its configuration says that it is due, or `force`; None when it is not.

    One process does it at a time: None as well while another one is at it.
    """
    lock = FileLock(log.directory / LOCK_FILE)
    if not lock.try_acquire():
        return None
    try:
        return _Run(log, now_ms, map_bytes).run(force)
    finally:
        lock.release()


class _Run:
    def __init__(self, log: PartitionLog, now_ms: int, map_bytes: int) -> None:
        self.log, self.now_ms, self.map_bytes = log, now_ms, map_bytes
        self.limit_bytes = DECOMPRESSED_LIMIT_BYTES + log.config.max_message_bytes
        self.cleaned_to = _read_checkpoint(log.directory)
        self.records: Counter[str] = Counter()  # of each log whose keys were read

    def run(self, force: bool) -> Compaction | None:
        self._mend()
        self._roll_if_overdue(force)
        state = self.log._state()
        bases = [base for base in self.log.segments() if base < state["active_base_offset"]]
        ends = dict(itertools.pairwise([*bases, state["active_base_offset"]]))
        stable = self.log.last_stable_offset
        # up to the first that has to wait: what lies behind it must not make records before it go
        bases = list(itertools.takewhile(lambda base: ends[base] <= stable and self._old_enough(base), bases))
        dirty = [base for base in bases if ends[base] > self.cleaned_to]
        if not dirty or not (force or self._due(bases, dirty)):
            return None
        keys, reached = self._map_keys(max(self.cleaned_to, dirty[0]), ends[dirty[-1]])
        done = self._clean_all([base for base in bases if base < reached], ends, keys)
        _write_checkpoint(self.log.directory, reached)
        return done

    def _due(self, bases: list[int], dirty: list[int]) -> bool:
        config = self.log.config
        size = {base: max(segment_file_size(self.log.directory, base, ".log"), 0) for base in bases}
        total = sum(size.values())
        if total and sum(size[base] for base in dirty) / total >= config.min_cleanable_dirty_ratio:
            return True
        first = self.log.fetch(max(dirty[0], self.log.log_start_offset), 1)
        return first is not None and self.now_ms - _first_timestamp_ms(first) > config.max_compaction_lag_ms

    def _old_enough(self, base: int) -> bool:
        lag_ms = self.log.config.min_compaction_lag_ms
        return lag_ms == 0 or self.now_ms - self.log._newest_timestamp(base, self.log._state()) >= lag_ms

    def _roll_if_overdue(self, force: bool) -> None:
        """The active segment is sealed when asked for, or when its records may not wait any longer."""
        state = self.log._state()
        overdue = self.now_ms - state["first_timestamp_ms"] > self.log.config.max_compaction_lag_ms
        if state["end_position"] and (force or overdue):
            self.log.roll_active()

    # --- keys --------------------------------------------------------------------------------------------------------

    def _map_keys(self, start: int, end: int) -> tuple[KeyMap, int]:
        """The newest offset of each key in [start, end), and how far the map's memory reached."""
        end = min(end, start + NOTED_RECORDS)
        keys = KeyMap(self.map_bytes, secrets.randbits(64), start, end)
        for region in self._regions(max(start, self.log.log_start_offset), end):
            stop = min(region.next_offset, end)
            before = keys.records
            reached = keys.add(region, start, self.limit_bytes, self.log.aborted_in(start, stop))
            self.records[region.path] += keys.records - before
            start = max(reached, start)
            if reached < stop:
                end = reached
                break
        keys.seal(end)
        return keys, end

    def _regions(self, start: int, end: int) -> Iterator[LogRegion]:
        region: LogRegion | None = None
        while start < end:
            region = self.log.fetch(start, REGION_BYTES, region, end)
            if region is None:
                return
            yield region
            start = region.next_offset

    # --- segments ----------------------------------------------------------------------------------------------------

    def _clean_all(self, bases: list[int], ends: dict[int, int], keys: KeyMap) -> Compaction:
        """Clean these segments, and put as many neighbours as fit into one."""
        done, group = Compaction(), list[_Cleaned]()
        for base in bases:
            cleaned = self._clean(base, ends[base], keys)
            done = done.plus(cleaned)
            if group and not self._fit(group, cleaned):
                self._put_in_place(group)
                group = []
            group.append(cleaned)
        self._put_in_place(group)
        return done

    def _fit(self, group: list[_Cleaned], more: _Cleaned) -> bool:
        size_bytes = sum(cleaned.after for cleaned in group) + more.after
        return size_bytes <= self.log.config.segment_bytes and more.end - group[0].base <= MAX_RELATIVE_OFFSET

    def _clean(self, base: int, end: int, keys: KeyMap) -> _Cleaned:
        config = self.log.config
        cleaner = Cleaner(keys, self.cleaned_to, self.now_ms - config.delete_retention_ms, self.limit_bytes)
        path = segment_path(self.log.directory, base, ".log")
        cleaned = path.with_name(path.name + CLEANED)
        start = max(base, self.log.log_start_offset)
        try:
            with open(cleaned, "wb") as out:
                if start > base:  # the records below were deleted, and are not read any more: they stay as they are
                    out.write(path.read_bytes()[: self._position_of(start)])
                newest_ms = self.log._newest_timestamp(base, self.log._state())
                if start == base and newest_ms < UNKNOWN_MS and keys.none_living(base, end - 1):
                    cleaner.leave_out_all(base, end - 1, newest_ms, self.records[str(path)])
                else:
                    for region in self._regions(start, end):
                        out.write(cleaner.clean(region, self.log.aborted_in(start, region.next_offset)))
                out.write(cleaner.finish())
        except OSError as error:
            cleaned.unlink(missing_ok=True)
            raise os_error(error.errno or 0, str(cleaned), "writing") from error
        before, after = max(segment_file_size(self.log.directory, base, ".log"), 0), cleaned.stat().st_size
        return _Cleaned(base, end, cleaned, before, after, cleaner.kept, cleaner.removed)

    def _position_of(self, offset: int) -> int:
        region = self.log.fetch(offset, 1)
        return 0 if region is None else int(region.position)

    def _put_in_place(self, group: list[_Cleaned]) -> None:
        """Make one file of a group of cleaned segments, and let it take their place; one that is as it was is left."""
        first, *others = group
        if others or first.removed or first.after < first.before:
            try:
                with open(first.path, "ab") as out:
                    for cleaned in others:
                        with open(cleaned.path, "rb") as part:
                            shutil.copyfileobj(part, out, REGION_BYTES)
                    out.flush()
                    os.fsync(out.fileno())
            except OSError as error:
                raise os_error(error.errno or 0, str(first.path), "writing") from error
            put_in_place(self.log, first.path, [cleaned.base for cleaned in group], group[-1].end)
        for cleaned in group:
            cleaned.path.unlink(missing_ok=True)

    def _mend(self) -> None:
        """After a crash: remove what was being written, finish a merge, and make the indexes that are missing."""
        for left in self.log.directory.glob("*" + CLEANED):
            left.unlink(missing_ok=True)
        with self.log._locked() as state:
            if finish_merge(self.log.directory):
                self.log._publish({"generation": state["generation"] + 1})
        state = self.log._state()
        for base in self.log.segments():
            sizes = [segment_file_size(self.log.directory, base, suffix) for suffix in SUFFIXES]
            if base < state["active_base_offset"] and sizes[0] >= 0 and min(sizes[1:]) < 0:
                path = segment_path(self.log.directory, base, ".log")
                with contextlib.suppress(FileNotFoundError):
                    rebuild_indexes(path, base, scan_segment(path, base, check_crc=False).batches)


def _first_timestamp_ms(region: LogRegion) -> int:
    return int.from_bytes(bytes(region)[27:35], "big", signed=True)


def _read_checkpoint(directory: Path) -> int:
    """Everything below this offset was compacted once."""
    try:
        found = json.loads((directory / CHECKPOINT_FILE).read_text())["cleaned_to"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0
    return found if isinstance(found, int) else 0


def _write_checkpoint(directory: Path, offset: int) -> None:
    replace_file(directory / CHECKPOINT_FILE, json.dumps({"cleaned_to": offset}), True)
