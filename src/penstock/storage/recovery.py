"""Making a partition ready after an opening of its directory: the decision table.

| control file | machine since then | files | decision |
|---|---|---|---|
| of this incarnation | - | - | ready: another process did this work |
| whole | the same boot | as long as published | process died or closed: nothing to scan, locks made anew |
| whole | the same boot | shorter than published | `CorruptionError`: `penstock repair` |
| whole | booted since | exactly as published, and synced | closed cleanly: nothing to scan |
| whole | booted since | otherwise | scan from the last synced segment, cut at the first bad batch, rebuild indexes |
| missing or foreign | - | none | a new, empty partition |
| missing or foreign | - | any | scan everything; a torn tail is cut; bad data before good data is a `CorruptionError` |

Thread and process safety: runs under the partition's file lock; whoever comes second finds it done.
Crash policy: the control file gets its magic last, so a crash in here means that the next opener does it again.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock._native.mapping import os_error
from penstock._native.partition import Partition
from penstock.errors import CorruptionError
from penstock.storage.forks import PrivateFile
from penstock.storage.index_file import rebuild_indexes
from penstock.storage.segment_file import (
    CONTROL_FILE,
    INDEX_BYTES,
    SUFFIXES,
    TIME_INDEX_BYTES,
    bases_in,
    segment_file_size,
    segment_path,
    sync_directory,
)
from penstock.storage.segment_merge import finish_merge
from penstock.storage.segment_scan import SegmentScan, scan_segment

CONTROL_BYTES = 16384
_log = logging.getLogger("penstock.recovery")


@dataclass(frozen=True, slots=True)
class Incarnation:
    """Which opening of the directory this is, and on which boot of the machine."""

    number: int
    boot_id: str

    @property
    def word(self) -> int:
        """Both in one number that is never 0: what was made for another one is not valid now."""
        return zlib.crc32(self.boot_id.encode()) << 30 ^ self.number | 1 << 62


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[int]:
    """Hold the partition's file lock; gives the descriptor of its control file, which is made when it is missing."""
    try:
        file = PrivateFile(f"{directory}/{CONTROL_FILE}")
    except FileNotFoundError as error:
        raise CorruptionError(
            "the partition's directory is missing", str(directory), 0, "a directory", "nothing"
        ) from error
    except OSError as error:
        raise os_error(error.errno or 0, f"{directory}/{CONTROL_FILE}", "opening") from error
    try:
        fcntl.flock(file.fd, fcntl.LOCK_EX)
        yield file.fd
    finally:
        file.close()


def make_ready(log: Partition, directory: Path, fd: int, incarnation: Incarnation) -> None:
    """Bring a partition's control file, open as `fd`, into this incarnation. Requires its file lock (see `alone`)."""
    state = log._read_control()
    # the boot counts too: a power cut may have taken back the number of the incarnation
    made = (state["incarnation"], state["boot_id"]) if state else None
    if made == (incarnation.number, incarnation.boot_id):
        return
    finish_merge(directory)
    if state is not None:
        same_boot = state["boot_id"] == incarnation.boot_id
        if same_boot or _closed_cleanly(directory, state):
            sizes = _check_files(directory, state)
            if same_boot:
                log._renew(incarnation.number)
            else:
                log._initialise(incarnation.boot_id, incarnation.number, _slot(state), True)
            log._set_allocated(*sizes)
            return
    recovered = _recover(directory, state)
    os.ftruncate(fd, 0)
    os.ftruncate(fd, CONTROL_BYTES)
    os.pwrite(fd, bytes(CONTROL_BYTES), 0)  # real blocks: a full disk is an error here, not a fault in the map
    log._initialise(incarnation.boot_id, incarnation.number, recovered, True)
    log._set_allocated(*_sizes(directory, recovered["active_base_offset"]))


def _slot(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name not in ("incarnation", "boot_id", "checkpoint")}


def _sizes(directory: Path, base: int) -> tuple[int, int, int]:
    folder = str(directory)
    log, index, time_index = (segment_file_size(folder, base, suffix) for suffix in SUFFIXES)
    return log, index, time_index


def _closed_cleanly(directory: Path, state: dict[str, Any]) -> bool:
    checkpoint = state["checkpoint"]
    return (
        checkpoint is not None
        and checkpoint["log_end_offset"] == state["log_end_offset"]
        and segment_file_size(directory, state["active_base_offset"], ".log") == state["end_position"]
    )


def _check_files(directory: Path, state: dict[str, Any]) -> tuple[int, int, int]:
    """The active log holds what was published; indexes that do not are rebuilt. Returns the sizes of the three."""
    base, end = state["active_base_offset"], state["end_position"]
    sizes = _sizes(directory, base)
    if sizes[0] < end:
        raise CorruptionError(
            "the file is shorter than what was stored in it; `penstock repair` keeps what is left",
            str(segment_path(directory, base, ".log")), max(sizes[0], 0), f"{end} bytes", f"{sizes[0]} bytes",
        )  # fmt: skip
    if sizes[1] >= state["index_entries"] * INDEX_BYTES and sizes[2] >= state["time_index_entries"] * TIME_INDEX_BYTES:
        return sizes
    _log.warning("%s: an index of segment %d is missing or cut, and is rebuilt", directory, base)
    log = segment_path(directory, base, ".log")
    scan = scan_segment(log, base, end=end)
    if scan.problem is not None:
        raise scan.problem
    rebuild_indexes(log, base, scan.batches)
    return _sizes(directory, base)


def _recover(directory: Path, state: dict[str, Any] | None) -> dict[str, Any]:
    """Scan, cut and re-index; returns the state to publish. Everything it leaves is synced."""
    bases = bases_in(directory)
    checkpoint = state["checkpoint"] if state else None
    start = checkpoint["log_start_offset"] if checkpoint else (bases[0] if bases else 0)
    if not bases:
        for suffix in SUFFIXES:
            segment_path(directory, start, suffix).touch()
        sync_directory(directory)
        return _empty_state(start, start)
    synced_base = (
        checkpoint["active_base_offset"] if checkpoint and checkpoint["active_base_offset"] in bases else bases[0]
    )
    doubtful = [base for base in bases if base >= synced_base]
    last, scan = doubtful[0], None
    for place, base in enumerate(doubtful):
        if scan is not None and base != _end_offset(last, scan):
            _drop(directory, doubtful[place:], f"does not follow on {_end_offset(last, scan)}", state is None)
            break
        last, scan = base, scan_segment(segment_path(directory, base, ".log"), base)
        later = doubtful[place + 1 :]
        if scan.problem is not None:
            if state is None and (later or scan.good_data_after):
                raise scan.problem
            _log.warning("%s: cut at the first bad batch: %s", directory, scan.problem)
        _cut(directory, base, scan)
        if scan.problem is not None:
            _drop(directory, later, "follows a bad batch", False)
            break
    assert scan is not None
    sync_directory(directory)
    recovered = _state_of(last, scan, start)
    recovered["index_entries"] = segment_file_size(directory, last, ".index") // INDEX_BYTES
    recovered["time_index_entries"] = segment_file_size(directory, last, ".timeindex") // TIME_INDEX_BYTES
    return recovered


def _drop(directory: Path, bases: list[int], why: str, refuse: bool) -> None:
    for base in bases:
        path = segment_path(directory, base, ".log")
        if refuse and path.stat().st_size:
            raise CorruptionError(f"the segment {why}; see `penstock verify` and `penstock repair`", str(path), 0)
        _log.warning("%s: removed, it %s", path, why)
        for suffix in SUFFIXES:
            segment_path(directory, base, suffix).unlink(missing_ok=True)


def _cut(directory: Path, base: int, scan: SegmentScan) -> None:
    path = segment_path(directory, base, ".log")
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_size != scan.valid_end:
            os.ftruncate(fd, scan.valid_end)
        os.fsync(fd)
    finally:
        os.close(fd)
    rebuild_indexes(path, base, scan.batches)


def _end_offset(base: int, scan: SegmentScan) -> int:
    return int(scan.batches[-1].last_offset) + 1 if scan.batches else base


def _empty_state(base: int, start: int) -> dict[str, Any]:
    return {
        "log_end_offset": base,
        "log_start_offset": start,
        "active_base_offset": base,
        "end_position": 0,
        "index_entries": 0,
        "time_index_entries": 0,
        "bytes_since_index": 0,
        "max_timestamp_ms": -1,
        "max_timestamp_offset": base,
        "first_timestamp_ms": -1,
        "generation": 1,
        "last_indexed_timestamp_ms": -1,
    }


def _state_of(base: int, scan: SegmentScan, start: int) -> dict[str, Any]:
    state = _empty_state(base, start)
    end = _end_offset(base, scan)
    state["log_end_offset"], state["end_position"] = end, scan.valid_end
    state["log_start_offset"] = min(start, end)
    if scan.batches:
        newest = max(scan.batches, key=lambda batch: (batch.max_timestamp_ms, -batch.last_offset))
        state["max_timestamp_ms"] = state["last_indexed_timestamp_ms"] = newest.max_timestamp_ms
        state["max_timestamp_offset"] = newest.last_offset
        state["first_timestamp_ms"] = scan.batches[0].max_timestamp_ms
    return state
