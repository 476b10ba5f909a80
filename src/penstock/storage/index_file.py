"""The two index files of a segment: Kafka's `.index` (8 bytes an entry) and `.timeindex` (12 bytes an entry).

Invariants: integers are big-endian and offsets relative to the segment's base offset. An index entry (last offset of a
batch, position of that batch) stands for the first batch after more than 4096 bytes since the last entry; a time index
entry (largest timestamp so far, last offset of the batch that holds it) is added with it when it is larger than the one
before, and once more at the end of the segment. Entries increase. Indexes only speed reading up: all of it can be made
anew from the log.

Crash policy: a rebuilt file replaces the old one whole.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from penstock._native.mapping import os_error
from penstock._native.scan import BatchFacts
from penstock.storage.segment_file import INDEX_BYTES, TIME_INDEX_BYTES

INDEX_INTERVAL_BYTES = 4096
_INDEX = struct.Struct(">II")
_TIME_INDEX = struct.Struct(">qI")


class IndexEntry(NamedTuple):
    """`offset` (absolute) is the last of the batch that begins at byte `position` of the log."""

    offset: int
    position: int


class TimeIndexEntry(NamedTuple):
    """No record up to `offset` (absolute) is newer than `timestamp_ms`."""

    timestamp_ms: int
    offset: int


def read_index(path: Path, base_offset: int, entries: int | None = None) -> list[IndexEntry]:
    """The first `entries` entries (default: all whole ones) of an `.index` file."""
    data = _read(path, INDEX_BYTES, entries)
    return [IndexEntry(base_offset + offset, position) for offset, position in _INDEX.iter_unpack(data)]


def read_time_index(path: Path, base_offset: int, entries: int | None = None) -> list[TimeIndexEntry]:
    """The first `entries` entries (default: all whole ones) of a `.timeindex` file."""
    data = _read(path, TIME_INDEX_BYTES, entries)
    unpacked = _TIME_INDEX.iter_unpack(data)
    return [TimeIndexEntry(timestamp_ms, base_offset + offset) for timestamp_ms, offset in unpacked]


def _read(path: Path, width: int, entries: int | None) -> bytes:
    data = path.read_bytes()
    count = len(data) // width if entries is None else min(entries, len(data) // width)
    return data[: count * width]


def index_batches(batches: Iterable[BatchFacts]) -> tuple[list[IndexEntry], list[TimeIndexEntry]]:
    """The entries that belong to a sealed segment with these batches."""
    index: list[IndexEntry] = []
    times: list[TimeIndexEntry] = []
    newest, since = TimeIndexEntry(-1, 0), 0
    for batch in batches:
        last_offset = batch.last_offset
        if since > INDEX_INTERVAL_BYTES:
            index.append(IndexEntry(last_offset, batch.position))
            _add_time(times, newest)
            since = 0
        since += batch.size_bytes
        if batch.max_timestamp_ms > newest.timestamp_ms:
            newest = TimeIndexEntry(batch.max_timestamp_ms, last_offset)
    _add_time(times, newest)
    return index, times


def _add_time(times: list[TimeIndexEntry], entry: TimeIndexEntry) -> None:
    if entry.timestamp_ms > (times[-1].timestamp_ms if times else -1):
        times.append(entry)


def rebuild_indexes(log_path: Path, base_offset: int, batches: Iterable[BatchFacts]) -> tuple[int, int]:
    """Write both index files of the log at `log_path` anew; returns (index entries, time index entries).

    Raises `DiskFullError`, `DataDirectoryError` or `OSError`; the old files are then still there.
    """
    index, times = index_batches(batches)
    packed = b"".join(_INDEX.pack(entry.offset - base_offset, entry.position) for entry in index)
    replace_bytes(log_path.with_suffix(".index"), packed)
    packed = b"".join(_TIME_INDEX.pack(entry.timestamp_ms, entry.offset - base_offset) for entry in times)
    replace_bytes(log_path.with_suffix(".timeindex"), packed)
    return len(index), len(times)


def replace_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old or the new one."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise os_error(error.errno or 0, str(path), "writing") from error
