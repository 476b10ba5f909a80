"""Letting a cleaned log take the place of one segment, or of a run of neighbours that fit into one.

The cleaned log goes by the first base offset of the run, so that no offset changes. Each step may be the last one:

| step | a process killed after it leaves |
|---|---|
| `penstock.cleaner.merge` says which offsets are merged (not for one segment) | the old segments |
| the first `.txnindex` gets the aborted transactions of all | the old segments; some are named twice |
| the first log is replaced | the new segment, without indexes, and old ones below its end: left over |
| the left over ones are removed, oldest first | the new segment, and fewer of them |
| the indexes are made, `penstock.cleaner.merge` is removed | the new segment |

Whoever reads meanwhile goes on by offset: in the file that is mapped, in a left over one, which holds the same offsets,
or in the new one. After a crash the next compaction, or the next opening of the directory when it was the last process,
does the rest by `segment_merge.finish_merge`.

Thread and process safety: the writer lock is held from the second step on; one process cleans at a time.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from penstock.errors import CorruptionError
from penstock.storage.directory import replace_file
from penstock.storage.index_file import rebuild_indexes
from penstock.storage.partition_log import PartitionLog
from penstock.storage.segment_file import MERGE_FILE, SUFFIXES, bases_in, segment_path, sync_directory
from penstock.storage.segment_merge import remove_segments
from penstock.storage.segment_scan import SegmentScan, scan_segment
from penstock.storage.transaction_index import SUFFIX as TRANSACTION_INDEX
from penstock.storage.transaction_index import merge_entries


def put_in_place(log: PartitionLog, cleaned: Path, bases: list[int], end: int) -> bool:
    """Let `cleaned` take the place of the segments `bases`, which end at offset `end`.

    False, and nothing happened, when one of them was deleted meanwhile. Raises `CorruptionError` when `cleaned` does
    not hold exactly these offsets, `DiskFullError`, `DataDirectoryError` or `OSError`.
    """
    base = bases[0]
    scan = scan_segment(cleaned, base, check_crc=False)
    if scan.problem is not None:
        raise scan.problem
    if scan.next_offset != end:
        message = "the cleaned log does not end where the old one did"
        raise CorruptionError(message, str(cleaned), scan.valid_end, end, scan.next_offset)
    log._lock()
    try:
        known = set(bases_in(log.directory))
        if not known.issuperset(bases):
            return False
        retired = [os.open(segment_path(log.directory, old, ".log"), os.O_RDONLY | os.O_CLOEXEC) for old in bases]
        try:
            _swap(log, cleaned, bases, end, scan)
        finally:
            log._forget_segments()
            _let_go(retired)
    finally:
        log._unlock()
    sync_directory(log.directory)
    return True


def _swap(log: PartitionLog, cleaned: Path, bases: list[int], end: int, scan: SegmentScan) -> None:
    directory, base = log.directory, bases[0]
    if len(bases) > 1:
        replace_file(directory / MERGE_FILE, json.dumps({"base": base, "end": end}), True)
        sync_directory(directory)
        merge_entries(*(segment_path(directory, old, TRANSACTION_INDEX) for old in bases))
    for suffix in SUFFIXES[1:]:
        segment_path(directory, base, suffix).unlink(missing_ok=True)
    path = segment_path(directory, base, ".log")
    os.replace(cleaned, path)
    log._publish({"generation": log._state()["generation"] + 1})
    if len(bases) > 1:
        sync_directory(directory)  # what follows is removed only once the new one is there
        remove_segments(directory, bases[1:])
    rebuild_indexes(path, base, scan.batches)
    (directory / MERGE_FILE).unlink(missing_ok=True)
    log._publish({"generation": log._state()["generation"] + 1})


def _let_go(descriptors: list[int]) -> None:
    """Close the last references to removed files: giving back their blocks may take long, and nobody waits for it."""

    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    threading.Thread(target=close, name="penstock-removal").start()
