"""What an interrupted merge of segments left to do: which segments are left over, and removing them.

`penstock.cleaner.merge` is a JSON object: the segment `base` takes in its neighbours up to offset `end`. Once the log
of `base` ends there, the merge is decided, and the segments between are left over; before that, it never was. See
`segment_swap` for the steps. Thread and process safety: looking, any; removing, as each function says. Crash policy:
every step may be done again, from the note or from what the files show.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from penstock.storage.segment_file import MERGE_FILE, SUFFIXES, bases_in, has_file, segment_path, sync_directory
from penstock.storage.segment_scan import scan_segment
from penstock.storage.transaction_index import SUFFIX as TRANSACTION_INDEX


def left_over(directory: Path) -> list[int]:
    """Base offsets of the segments whose records an interrupted merge has put into another one. Changes nothing."""
    try:
        merge = json.loads((directory / MERGE_FILE).read_text())
        base, end = int(merge["base"]), int(merge["end"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []
    path = segment_path(directory, base, ".log")
    if not path.exists() or scan_segment(path, base, check_crc=False).next_offset != end:
        return []
    return [old for old in bases_in(directory) if base < old < end]


def finish_merge(directory: Path) -> bool:
    """Do what an interrupted merge left to do; whether there was one. Requires that nobody else changes segments."""
    if not has_file(directory, MERGE_FILE):
        return False
    remove_segments(directory, left_over(directory))
    sync_directory(directory)
    (directory / MERGE_FILE).unlink(missing_ok=True)
    return True


def remove_segments(directory: Path, bases: Iterable[int]) -> None:
    """Oldest first, the log last: an offset is always in a log that is found by it; no index is left without one."""
    for base in bases:
        for suffix in (TRANSACTION_INDEX, *reversed(SUFFIXES)):
            segment_path(directory, base, suffix).unlink(missing_ok=True)
