"""Making a damaged data directory readable again, without a broker.

| found | done |
|---|---|
| bad bytes at the end of the last segment | cut off |
| bad bytes elsewhere | cut out; a batch without records stands for the lost offsets; the others stay |
| offsets missing between two segments | such a batch is added to the first |
| an index missing or wrong | rebuilt from the log |

Bytes that are taken out are first saved as `repair/<file>.removed-<position>` in the partition's directory. When a
log or index of the active segment changes, the control file goes first: the next opening finds the state in the log.

Thread and process safety: the directory is held alone, so no broker has it open (`LockedError` otherwise).
Crash policy: a log is cut in one step or replaced whole, and may be repaired again after a crash at any point.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock._native.control_state import read_control
from penstock._native.mapping import os_error
from penstock.errors import UnknownTopicError
from penstock.storage.directory import exclusive
from penstock.storage.index_check import check_indexes
from penstock.storage.index_file import rebuild_indexes, replace_bytes
from penstock.storage.repair_plan import Piece, SegmentPlan, plan_segment
from penstock.storage.segment_file import CONTROL_FILE, SUFFIXES, bases_in, segment_path, sync_directory
from penstock.storage.segment_merge import finish_merge, left_over
from penstock.storage.segment_scan import LogScanner, scan_segment
from penstock.storage.verify import REPAIR_DIRECTORY, partition_directories, verify

_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class RepairAction:
    """One thing done (in a dry run: to be done). `kind`: truncated, cut, filled, index, control, left."""

    path: str
    kind: str
    message: str


@dataclass(slots=True)
class RepairReport:
    """What `repair` did. `ok`: `verify` finds nothing wrong afterwards; in a dry run: nothing would be left."""

    ok: bool = True
    actions: list[RepairAction] = field(default_factory=list)


def repair(path: str | os.PathLike[str], topic: str | None = None, dry_run: bool = False) -> RepairReport:
    """Repair a data directory, or one `topic` of it; with `dry_run` only tell what would be done.

    Raises `LockedError` while any process has the directory open, `DataDirectoryError`, `FormatVersionError`,
    `UnknownTopicError`, `DiskFullError`, and `CodecUnavailableError` before a batch it cannot judge is touched.
    """
    directory = Path(path)
    report = RepairReport()
    with exclusive(directory):
        partitions = list(partition_directories(directory, topic))
        if topic is not None and not partitions:
            raise UnknownTopicError(f"topic {topic!r} does not exist in {directory}")
        for partition in partitions:
            _PartitionRepair(partition, report, dry_run).run()
        report.ok = not any(action.kind == "left" for action in report.actions)
        if not dry_run:
            report.ok = verify(directory, topic).ok
    return report


class _PartitionRepair:
    """Repairs one partition."""

    def __init__(self, directory: Path, report: RepairReport, dry_run: bool) -> None:
        self.directory, self.report, self.dry_run = directory, report, dry_run
        self.control = read_control(str(directory / CONTROL_FILE))

    def run(self) -> None:
        """Plan every segment, then change what has to change, oldest first."""
        if not self.dry_run:
            finish_merge(self.directory)
        passed = left_over(self.directory)
        bases = [base for base in bases_in(self.directory) if base not in passed]
        active = self.control["active_base_offset"] if self.control else None
        strays = [base for base in bases if active is not None and base > active]
        bases = [base for base in bases if base not in strays]
        if self.control is not None and self._is_short():
            self._drop_control(strays)
        plans = {}
        for base, following in zip(bases, [*bases[1:], None], strict=True):
            plan = plan_segment(*self._readable(base), following)
            if following is not None and plan.next_offset > following:
                message = f"begins before the offset {plan.next_offset} that has to follow"
                self._tell(self._log(following), "left", message)
            if plan.removed or plan.filled:
                plans[base] = plan
        if plans and self.control is not None:
            self._drop_control(strays)
        for base in bases:
            if base in plans:
                self._change_log(base, plans[base])
            self._check_indexes(base, base == bases[-1], base in plans, strays)

    def _is_short(self) -> bool:
        """Whether the active log is missing, or shorter than what was stored in it."""
        assert self.control is not None
        log = self._log(self.control["active_base_offset"])
        return not log.exists() or log.stat().st_size < self.control["end_position"]

    def _log(self, base: int) -> Path:
        return segment_path(self.directory, base, SUFFIXES[0])

    def _tell(self, path: Path, kind: str, message: str) -> None:
        self.report.actions.append(RepairAction(str(path), kind, message))

    def _readable(self, base: int) -> tuple[LogScanner, int, int]:
        """The log, its base offset and where its data ends."""
        scanner = LogScanner(str(self._log(base)))
        if self.control is not None and self.control["active_base_offset"] == base:
            return scanner, base, min(self.control["end_position"], scanner.size)
        scan = scan_segment(scanner.path, base, check_crc=False)
        return scanner, base, scan.valid_end if scan.zero_tail else scanner.size

    def _drop_control(self, strays: list[int]) -> None:
        """Without it everything in the files counts, so what was never published goes away too."""
        assert self.control is not None
        active, end = self.control["active_base_offset"], self.control["end_position"]
        self._tell(self.directory / CONTROL_FILE, "control", "removed; the next opening makes it from the log")
        self.control = None
        if self.dry_run:
            return
        (self.directory / CONTROL_FILE).unlink()
        log = self._log(active)
        if log.exists() and log.stat().st_size > end:
            _truncate(log, end)
        for stray in strays:
            for suffix in SUFFIXES:
                segment_path(self.directory, stray, suffix).unlink(missing_ok=True)
        sync_directory(self.directory)

    def _change_log(self, base: int, plan: SegmentPlan) -> None:
        log = self._log(base)
        for piece in plan.removed:
            kind = "truncated" if plan.only_cut else "cut"
            self._tell(log, kind, f"bytes {piece.start} to {piece.end} taken out: {piece.problem}")
            if not self.dry_run:
                self._save(log, piece)
        for first, after in plan.filled:
            self._tell(log, "filled", f"a batch without records stands for the lost offsets {first} to {after - 1}")
        if self.dry_run:
            return
        if plan.only_cut:
            _truncate(log, plan.kept_end)
        else:
            _replace(log, plan.parts)
        sync_directory(self.directory)

    def _save(self, log: Path, piece: Piece) -> None:
        target = self.directory / REPAIR_DIRECTORY
        target.mkdir(exist_ok=True)
        with open(log, "rb") as file:
            file.seek(piece.start)
            data = file.read(piece.end - piece.start)
        replace_bytes(target / f"{log.name}.removed-{piece.start}", data)
        sync_directory(target)

    def _check_indexes(self, base: int, last: bool, changed: bool, strays: list[int]) -> None:
        log = self._log(base)
        if changed and self.dry_run:
            self._tell(log, "index", "both indexes rebuilt, as the log changes")
            return
        control: dict[str, Any] | None = self.control if last else None
        scan = scan_segment(log, base, end=control["end_position"] if control else None)
        findings = list(check_indexes(log, base, list(scan.batches), control, last))
        if not changed and not findings:
            return
        for path, position, _, message, _, _ in findings:
            self._tell(path, "index", f"rebuilt: {message} (byte {position})")
        if last and self.control is not None:
            self._drop_control(strays)
        if not self.dry_run:
            rebuild_indexes(log, base, scan.batches)
            sync_directory(self.directory)


def _truncate(path: Path, size: int) -> None:
    try:
        with open(path, "r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())
    except OSError as error:
        raise os_error(error.errno or 0, str(path), "cutting") from error


def _replace(path: Path, parts: Sequence[Piece | bytes]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(path, "rb") as old, open(temporary, "wb") as new:
            for part in parts:
                if isinstance(part, bytes):
                    new.write(part)
                    continue
                old.seek(part.start)
                left = part.end - part.start
                while left and (chunk := old.read(min(left, _COPY_BYTES))):
                    new.write(chunk)
                    left -= len(chunk)
            new.flush()
            os.fsync(new.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise os_error(error.errno or 0, str(path), "writing") from error
