"""Batches and records of one log file, for looking at. Needs no broker, and a live one does no harm.

Thread and process safety: reads only; an iterator is one thread's. Crash policy: nothing is written. What a crash left
behind the last good batch ends the batches, with a `CorruptionError` unless it is zeros.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import penstock.storage.compression  # registers the codecs with the record reader  # noqa: F401
from penstock._native.records import Record, RecordCursor
from penstock._native.region import Region
from penstock._native.scan import BatchFacts, LogScanner
from penstock.storage.segment_scan import base_offset_of, scan_segment


def iter_batches(path: str | os.PathLike[str]) -> Iterator[BatchFacts]:
    """Facts of every batch of a log file, in file order.

    Raises `CorruptionError` after the last good batch when something else than zeros follows it,
    `OSError` when the file cannot be read.
    """
    scan = scan_segment(path, _base_offset(path), dense=False)
    yield from scan.batches
    if scan.problem is not None:
        raise scan.problem


def iter_records(path: str | os.PathLike[str], batch: BatchFacts | None = None) -> Iterator[Record]:
    """Every record of a log file, or of one `batch` that `iter_batches` gave. Control batches hold none.

    The topic and partition are those of the directory's name. Raises `CorruptionError` and `OSError` as `iter_batches`.
    """
    topic, partition = _topic_partition(path)
    scanner = LogScanner(os.fspath(path))
    cursor = RecordCursor(topic, partition)
    for facts in iter_batches(path) if batch is None else (batch,):
        data = scanner.read(facts.position, facts.size_bytes)
        cursor.feed(Region.from_buffer(data, scanner.path, facts.position), facts.base_offset)
        while (record := cursor.next_record()) is not None:
            yield record


def _base_offset(path: str | os.PathLike[str]) -> int:
    stem = Path(path).name.split(".", 1)[0]
    return base_offset_of(path) if stem.isascii() and stem.isdigit() else 0


def _topic_partition(path: str | os.PathLike[str]) -> tuple[str, int]:
    topic, _, number = Path(path).absolute().parent.name.rpartition("-")
    return (topic, int(number)) if topic and number.isascii() and number.isdigit() else ("", 0)
