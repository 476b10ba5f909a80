"""Scanning a log file: which batches are whole, where good data ends, and what is wrong there.

Safe on any bytes: an empty file, one cut anywhere, random content. Reads only; the result holds copies, so it stays
valid when the file changes. A tail of zeros is room that was preallocated, not a problem.
Thread and process safety: any. Crash policy: nothing is written; what a crash left is told apart by recovery.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock._native.scan import BatchFacts, BatchList, LogScanner
from penstock.errors import CorruptionError

__all__ = ["BatchFacts", "BatchList", "LogScanner", "SegmentScan", "scan_segment"]
MAX_RELATIVE_OFFSET = 2**31 - 1


@dataclass(frozen=True, slots=True)
class SegmentScan:
    """What a scan found."""

    batches: BatchList
    """Facts of every good batch before the first problem, in file order."""
    valid_end: int
    """First byte after the last good batch."""
    problem: CorruptionError | None
    """What is wrong at `valid_end`; None when the file ends there or only zeros follow."""
    zero_tail: bool
    """Whether bytes follow `valid_end` and all of them are zero."""
    good_data_after: bool
    """Whether a whole, plausible batch lies somewhere after the problem."""
    size_bytes: int
    """Bytes that were looked at: the end of the file, or `end`."""

    @property
    def next_offset(self) -> int | None:
        """Offset after the last good record; None without batches."""
        return self.batches[-1].last_offset + 1 if len(self.batches) else None


def scan_segment(
    path: str | os.PathLike[str],
    base_offset: int,
    start: int = 0,
    end: int | None = None,
    check_crc: bool = True,
    dense: bool = True,
) -> SegmentScan:
    """Scan the log file at `path`, whose name says `base_offset`, from byte `start` to `end` (default: all of it).

    `start` must be the first byte of a batch. `check_crc=False` looks at headers only (1 GiB in milliseconds).
    `dense=False` allows offsets to be missing between batches. Raises `OSError` when the file cannot be read.
    """
    scanner = LogScanner(os.fspath(path))
    stop = scanner.size if end is None else min(end, scanner.size)
    exact = dense and start == 0
    batches, valid_end, wrong = scanner.scan(start, stop, base_offset, base_offset, exact, check_crc)
    if dense and not exact and len(batches):
        # the first batch told where to begin; what follows it has to be dense
        first = batches[0]
        batches, valid_end, wrong = scanner.scan(start, stop, base_offset, first.base_offset, True, check_crc)
    zero_tail = valid_end < stop and scanner.only_zeros(valid_end, stop)
    if wrong is None or zero_tail:
        return SegmentScan(batches, valid_end, None, zero_tail, False, stop)
    expected = batches[-1].last_offset + 1 if len(batches) else base_offset
    after = scanner.find_batch(valid_end + 1, stop, expected, base_offset + MAX_RELATIVE_OFFSET)
    problem = CorruptionError(wrong[0], scanner.path, valid_end, wrong[1], wrong[2])
    return SegmentScan(batches, valid_end, problem, False, after >= 0, stop)


def base_offset_of(path: str | os.PathLike[str]) -> int:
    """The base offset in the name of a segment's file."""
    return int(Path(path).name.split(".", 1)[0])


def newest(batches: Sequence[BatchFacts] | BatchList) -> BatchFacts | None:
    """The first batch that holds the largest timestamp; None without batches."""
    return max(batches, key=lambda batch: (batch.max_timestamp_ms, -batch.last_offset)) if len(batches) else None
