"""Looking at every byte of a data directory and telling what is wrong. Reads only; a live broker does no harm.

What is beyond the published end of a partition is not looked at; without a control file everything but a tail of zeros
counts. Thread and process safety: any. Crash policy: nothing is written. After bad bytes the check goes on at the next
good batch, so one report names all problems.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock._native.control_state import read_control
from penstock.errors import CorruptionError, DataDirectoryError, UnknownTopicError
from penstock.storage.compression import decompress
from penstock.storage.directory import BELLS_FILE, META_FILE, check_format
from penstock.storage.index_check import check_indexes
from penstock.storage.metrics_store import METRICS_FILE
from penstock.storage.segment_file import CONTROL_FILE, MERGE_FILE, SUFFIXES, TRANSACTIONS_FILE, bases_in, segment_path
from penstock.storage.segment_merge import left_over
from penstock.storage.segment_scan import MAX_RELATIVE_OFFSET, BatchFacts, LogScanner

DECOMPRESSED_LIMIT_BYTES = 1 << 30
REPAIR_DIRECTORY = "repair"
_PARTITION_NAME = re.compile(r"([A-Za-z0-9._-]{1,249})-(0|[1-9]\d{0,9})\Z")
_PARTITION_FILES = {
    CONTROL_FILE,
    REPAIR_DIRECTORY,
    TRANSACTIONS_FILE,
    "penstock.cleaner",
    "penstock.cleaner.lock",
    MERGE_FILE,
}
_SEGMENT_NAME = re.compile(r"\d{20}\.(log|index|timeindex|txnindex)\Z")
# What the layers above keep: named here so that it is not taken for foreign; each looks after its own.
_KEPT_ABOVE = re.compile(r"metrics|sagas|.+\.sqlite3(-wal|-shm|-journal|-inbox-\d+)?")
_KEPT_ABOVE_IN_PARTITIONS = re.compile(r"share-.+|share\.lock|index")
_OWN_FILES = {
    META_FILE,
    BELLS_FILE,
    "incarnation",
    "group-commits",
    "group-slots",
    METRICS_FILE,
    "processes",
    "producers",
    "transactions",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong. `kind`: size, batch, records, offsets, index, timeindex, control, unreadable, foreign."""

    path: str
    position: int
    """Byte in the file; -1 when it is about the file itself."""
    kind: str
    message: str
    expected: Any = None
    got: Any = None


@dataclass(slots=True)
class VerifyReport:
    """What `verify` found. `ok` unless there is a problem other than foreign files."""

    problems: list[Problem] = field(default_factory=list)
    batches: int = 0
    records: int = 0
    size_bytes: int = 0
    segments: int = 0

    @property
    def ok(self) -> bool:
        """Whether all that was stored is there and right."""
        return all(problem.kind == "foreign" for problem in self.problems)


def verify(
    path: str | os.PathLike[str], topic: str | None = None, progress: Callable[[int], None] | None = None
) -> VerifyReport:
    """Check a data directory, or one `topic` of it. `progress(size_bytes)` is called after each segment.

    Raises `DataDirectoryError` (not a directory), `FormatVersionError` (a newer format), `UnknownTopicError`, `OSError`
    (unreadable). What is wrong with the data is in the report instead.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise DataDirectoryError(20, f"{directory} is not a directory")
    check_format(directory)
    report = VerifyReport()
    partitions = list(partition_directories(directory, topic))
    if topic is not None and not partitions:
        raise UnknownTopicError(f"topic {topic!r} does not exist in {directory}")
    for partition in partitions:
        _verify_partition(partition, report, progress)
    if topic is None:
        _list_foreign(directory, partitions, report)
    return report


def partition_directories(directory: Path, topic: str | None = None) -> Iterator[Path]:
    """The partition directories `<topic>-<number>`, in order of topic and number."""
    named = []
    for entry in directory.iterdir():
        match = _PARTITION_NAME.match(entry.name)
        if match and entry.is_dir() and topic in (None, match[1]):
            named.append((match[1], int(match[2]), entry))
    return (entry for _, _, entry in sorted(named))


def _list_foreign(directory: Path, partitions: list[Path], report: VerifyReport) -> None:
    for entry in sorted(directory.iterdir()):
        own = entry.name in _OWN_FILES or entry.suffix in (".lock", ".tmp") or entry in partitions
        if not own and not _KEPT_ABOVE.fullmatch(entry.name):
            report.problems.append(Problem(str(entry), -1, "foreign", "not part of the data"))


def _verify_partition(directory: Path, report: VerifyReport, progress: Callable[[int], None] | None) -> None:
    control = read_control(str(directory / CONTROL_FILE))
    bases = bases_in(directory)
    _list_foreign_files(directory, bases, report)
    passed = left_over(directory)
    bases = [base for base in bases if base not in passed]
    if control is not None:
        active = control["active_base_offset"]
        bases = [base for base in bases if base <= active]
        if not bases or bases[-1] != active:
            lost = segment_path(directory, active, ".log")
            report.problems.append(Problem(str(lost), -1, "size", "the active segment is missing", "a file", "nothing"))
    expected = None
    for base in bases:
        if expected is not None and base != expected:
            where = segment_path(directory, base, ".log")
            message = "the segment does not follow the one before it"
            report.problems.append(Problem(str(where), 0, "offsets", message, expected, base))
        active_control = control if control is not None and control["active_base_offset"] == base else None
        walk = _SegmentWalk(directory, base, active_control, base == bases[-1], report)
        try:
            expected = walk.run()
        except FileNotFoundError:
            if segment_path(directory, base, ".log").exists():
                raise
            expected = None  # retention removed it meanwhile
            continue
        if progress is not None:
            progress(report.size_bytes)
    if control is not None and expected is not None and expected != control["log_end_offset"]:
        message = "the log does not end where the control file says"
        end = control["log_end_offset"]
        report.problems.append(Problem(str(directory / CONTROL_FILE), 0, "control", message, end, expected))


def _list_foreign_files(directory: Path, bases: list[int], report: VerifyReport) -> None:
    for entry in sorted(directory.iterdir()):
        name = entry.name
        own = name in _PARTITION_FILES or entry.suffix in (".tmp", ".cleaned")
        own = own or _KEPT_ABOVE_IN_PARTITIONS.fullmatch(name) is not None
        if not own and not (_SEGMENT_NAME.match(name) and int(name[:20]) in bases):
            report.problems.append(Problem(str(entry), -1, "foreign", "not part of the partition"))


class _SegmentWalk:
    """Checks one segment and adds what is wrong to the report."""

    def __init__(
        self, directory: Path, base: int, control: dict[str, Any] | None, last: bool, report: VerifyReport
    ) -> None:
        self.log = segment_path(directory, base, SUFFIXES[0])
        self.base, self.control, self.last, self.report = base, control, last, report
        self.batches: list[BatchFacts] = []

    def run(self) -> int:
        """Check it all; returns the offset that has to follow."""
        try:
            scanner = LogScanner(str(self.log))
        except PermissionError as error:
            self._add(-1, "unreadable", f"cannot be read: {error.strerror}")
            return self.base
        end = scanner.size
        if self.control is not None:
            end = self.control["end_position"]
            if scanner.size < end:
                message = "the file is shorter than what was stored in it"
                self._add(scanner.size, "size", message, f"{end} bytes", f"{scanner.size} bytes")
                end = scanner.size
        following = self._walk(scanner, end)
        self.report.segments += 1
        self.report.size_bytes += end
        for file, position, kind, message, expected, got in check_indexes(
            self.log, self.base, self.batches, self.control, self.last
        ):
            self.report.problems.append(Problem(str(file), position, kind, message, expected, got))
        return following

    def _walk(self, scanner: LogScanner, end: int) -> int:
        position, following = 0, self.base
        while True:
            batches, position, wrong = scanner.scan(position, end, self.base, following, True, True)
            for batch in batches:
                self._check_records(scanner, batch)
                following = batch.last_offset + 1
            self.batches.extend(batches)
            if wrong is None or (self.last and self.control is None and scanner.only_zeros(position, end)):
                return following
            self._add(position, "batch", *wrong)
            position = scanner.find_batch(position + 1, end, following, self.base + MAX_RELATIVE_OFFSET)
            if position < 0:
                return following
            following = int.from_bytes(scanner.read(position, 8), "big")

    def _check_records(self, scanner: LogScanner, batch: BatchFacts) -> None:
        self.report.batches += 1
        self.report.records += batch.count
        try:
            wrong = scanner.check_records(batch, decompress, DECOMPRESSED_LIMIT_BYTES)
        except CorruptionError as error:
            wrong = (error.message, error.expected, error.got)
        if wrong is not None:
            self._add(batch.position, "records", *wrong)

    def _add(self, position: int, kind: str, message: str, expected: Any = None, got: Any = None) -> None:
        self.report.problems.append(Problem(str(self.log), position, kind, message, expected, got))
