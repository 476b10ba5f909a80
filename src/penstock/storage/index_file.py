"""The indexes of a segment, as Kafka's: `.index` (offset to position) and `.timeindex` (timestamp to offset).

An entry is made before a batch when more than 4096 bytes came since the last one. Offset entries name the last offset of
the batch and its position; time entries name the largest timestamp so far and the last offset of the batch that holds it.
Crash policy: files are replaced whole.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from penstock.storage.segment_file import INDEX_BYTES, TIME_INDEX_BYTES
from penstock.storage.segment_scan import BatchFacts

INTERVAL_BYTES = 4096
_INDEX_ENTRY = struct.Struct(">II")
_TIME_ENTRY = struct.Struct(">qI")


def build_indexes(base_offset: int, batches: Iterable[BatchFacts]) -> tuple[bytes, bytes]:
    """The contents of both indexes for these batches of a segment."""
    offsets, times = bytearray(), bytearray()
    since, newest, newest_offset, indexed = 0, -1, base_offset, -1
    for batch in batches:
        if since > INTERVAL_BYTES:
            offsets += _INDEX_ENTRY.pack(batch.last_offset - base_offset, batch.position)
            if newest > indexed:
                times += _TIME_ENTRY.pack(newest, newest_offset - base_offset)
                indexed = newest
            since = 0
        if batch.max_timestamp_ms > newest:
            newest, newest_offset = batch.max_timestamp_ms, batch.last_offset
        since += batch.size_bytes
    if newest > indexed:
        times += _TIME_ENTRY.pack(newest, newest_offset - base_offset)
    return bytes(offsets), bytes(times)


def rebuild_indexes(log_path: Path, base_offset: int, batches: Iterable[BatchFacts]) -> tuple[int, int]:
    """Write both indexes of a segment anew; returns their numbers of entries."""
    offsets, times = build_indexes(base_offset, batches)
    _replace(log_path.with_suffix(".index"), offsets)
    _replace(log_path.with_suffix(".timeindex"), times)
    return len(offsets) // INDEX_BYTES, len(times) // TIME_INDEX_BYTES


def read_index(path: Path, entries: int | None = None) -> list[tuple[int, int]]:
    """(offset - base offset, position) of each entry; bytes of an incomplete entry at the end are left out."""
    return list(_INDEX_ENTRY.iter_unpack(_whole(path, INDEX_BYTES, entries)))


def read_time_index(path: Path, entries: int | None = None) -> list[tuple[int, int]]:
    """(timestamp, offset - base offset) of each entry; bytes of an incomplete entry at the end are left out."""
    return list(_TIME_ENTRY.iter_unpack(_whole(path, TIME_INDEX_BYTES, entries)))


def _whole(path: Path, width: int, entries: int | None) -> bytes:
    data = path.read_bytes()
    size = len(data) - len(data) % width
    return data[: size if entries is None else min(size, entries * width)]


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".swap")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
