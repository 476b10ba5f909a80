"""Comparing the two index files of a segment with the batches of its log.

Invariant: what agrees here is what `index_file` would write anew, or a part of it that leads every search right. Thread
and process safety: any; reads only, and of the active segment only what is published. Crash policy: nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from penstock._native.scan import BatchFacts
from penstock.storage.index_file import index_batches, read_index, read_time_index
from penstock.storage.segment_file import INDEX_BYTES, TIME_INDEX_BYTES

Finding = tuple[Path, int, str, str, Any, Any]  # file, position, kind, message, expected, got


def check_indexes(
    log: Path, base: int, batches: Sequence[BatchFacts], control: dict[str, Any] | None, last: bool
) -> Iterator[Finding]:
    """What is wrong with the indexes of `log`; nothing when both agree with `batches`.

    `control`: what is published, for the active segment. `last`: a tail of zeros is room that was preallocated.
    """
    wanted_index, wanted_times = index_batches(batches)
    path = log.with_suffix(".index")
    found = _size_findings(path, "index", INDEX_BYTES, control, "index_entries", len(wanted_index), last)
    if found is not None:
        yield found
    else:
        yield from _check_offsets(path, base, batches, control, last)
    # the entry for the newest record is only written when the segment is sealed
    least = 0 if last else len(wanted_times)
    path = log.with_suffix(".timeindex")
    found = _size_findings(path, "timeindex", TIME_INDEX_BYTES, control, "time_index_entries", least, last)
    if found is not None:
        yield found
    else:
        yield from _check_times(path, base, batches, control, last)


def _size_findings(
    path: Path, kind: str, width: int, control: dict[str, Any] | None, key: str, wanted: int, last: bool
) -> Finding | None:
    if not path.exists():
        return path, -1, kind, "the file is missing", "a file", "nothing"
    size = path.stat().st_size
    if control is not None:
        if size < control[key] * width:
            return path, size, kind, "the file is shorter than what was stored in it", control[key] * width, size
        return None
    if size % width and not last:
        return path, size - size % width, kind, "the last entry is cut", width, size % width
    if size == 0 and wanted:
        return path, 0, kind, "the file has no entries", f"{wanted} entries", "0 entries"
    return None


def _check_offsets(
    path: Path, base: int, batches: Sequence[BatchFacts], control: dict[str, Any] | None, last: bool
) -> Iterator[Finding]:
    entries = read_index(path, base, control["index_entries"] if control else None)
    if last and control is None:
        while entries and entries[-1] == (base, 0):
            entries.pop()
    known = {batch.position: batch.last_offset for batch in batches}
    before = (base - 1, -1)
    for place, entry in enumerate(entries):
        where = place * INDEX_BYTES
        if entry.position not in known:
            yield path, where, "index", "an entry points where no batch begins", "a batch", f"byte {entry.position}"
            return
        if known[entry.position] != entry.offset:
            yield path, where, "index", "an entry has the wrong offset", known[entry.position], entry.offset
            return
        if entry.offset <= before[0] or entry.position <= before[1]:
            yield path, where, "index", "entries do not increase", f"more than {before}", tuple(entry)
            return
        before = (entry.offset, entry.position)


def _check_times(
    path: Path, base: int, batches: Sequence[BatchFacts], control: dict[str, Any] | None, last: bool
) -> Iterator[Finding]:
    entries = read_time_index(path, base, control["time_index_entries"] if control else None)
    if last and control is None:
        while entries and entries[-1] == (0, base):
            entries.pop()
    newest, largest = {}, -1
    for batch in batches:
        largest = max(largest, batch.max_timestamp_ms)
        newest[batch.last_offset] = largest
    before = (-1, base - 1)
    for place, entry in enumerate(entries):
        where = place * TIME_INDEX_BYTES
        if entry.offset not in newest:
            yield path, where, "timeindex", "an entry names an offset that ends no batch", "a batch", entry.offset
            return
        if newest[entry.offset] != entry.timestamp_ms:
            yield path, where, "timeindex", "an entry has the wrong time", newest[entry.offset], entry.timestamp_ms
            return
        if entry.timestamp_ms <= before[0] or entry.offset <= before[1]:
            yield path, where, "timeindex", "entries do not increase", f"more than {before}", tuple(entry)
            return
        before = (entry.timestamp_ms, entry.offset)
    if not last and before[0] < largest:
        where = len(entries) * TIME_INDEX_BYTES
        yield path, where, "timeindex", "the entry of the newest record is missing", largest, before[0]
