"""What has to change in a log file so that all that is good in it can be read again.

Invariants: the parts of a plan cover the segment's offsets without a gap and in order; what is good stays byte for
byte. Thread and process safety: reads only; the caller keeps the file from changing. Crash policy: nothing is written;
who carries a plan out saves first what it leaves out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from fastcrc.crc32 import iscsi as crc32c

from penstock.errors import CorruptionError
from penstock.storage.compression import decompress
from penstock.storage.segment_scan import MAX_RELATIVE_OFFSET, BatchFacts, LogScanner

DECOMPRESSED_LIMIT_BYTES = 1 << 30
_CHECKED = struct.Struct(">hiqqqhii")  # attributes to record count: what the CRC covers
_UNCHECKED = struct.Struct(">qiibI")  # base offset, length, leader epoch, version, CRC
_LOG_OVERHEAD = 12


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes `start` to `end` of the old file, and what is wrong with them (None: they are good)."""

    start: int
    end: int
    problem: CorruptionError | None = None


@dataclass(slots=True)
class SegmentPlan:
    """The new content of a log: `parts` are ranges of the old file or bytes; `removed` are the ranges left out."""

    parts: list[Piece | bytes] = field(default_factory=list)
    removed: list[Piece] = field(default_factory=list)
    filled: list[tuple[int, int]] = field(default_factory=list)
    """Offsets (first, after the last) that are lost and for which an empty batch stands."""
    next_offset: int = 0

    @property
    def only_cut(self) -> bool:
        """Whether the new file is the beginning of the old one."""
        return not self.filled and (not self.parts or (len(self.parts) == 1 and self._begins()))

    def _begins(self) -> bool:
        first = self.parts[0]
        return isinstance(first, Piece) and first.start == 0

    @property
    def kept_end(self) -> int:
        """Size of the new file when `only_cut`."""
        first = self.parts[0] if self.parts else None
        return first.end if isinstance(first, Piece) else 0


def empty_batch(base_offset: int, next_offset: int, timestamp_ms: int) -> bytes:
    """A batch without records that stands for the offsets from `base_offset` to `next_offset` - 1, as Kafka's."""
    delta = next_offset - base_offset - 1
    checked = _CHECKED.pack(0, delta, timestamp_ms, timestamp_ms, -1, -1, -1, 0)
    length = _UNCHECKED.size + len(checked) - _LOG_OVERHEAD
    return _UNCHECKED.pack(base_offset, length, 0, 2, crc32c(checked)) + checked


def plan_segment(scanner: LogScanner, base: int, end: int, next_base: int | None) -> SegmentPlan:
    """Plan for the log that begins at offset `base`, of which the bytes up to `end` count.

    `next_base` is where the next segment begins; None for the last one, whose bad tail is cut without a stand-in.
    """
    plan = SegmentPlan(next_offset=base)
    limit = base + MAX_RELATIVE_OFFSET if next_base is None else next_base
    position, timestamp_ms = 0, -1
    while position < end:
        batches, stop, wrong = scanner.scan(position, end, base, plan.next_offset, True, True)
        problem = CorruptionError(wrong[0], scanner.path, stop, wrong[1], wrong[2]) if wrong else None
        bad, kept = stop, position
        for batch in batches:
            unreadable = _unreadable(scanner, batch)
            if unreadable is not None:
                bad, problem = batch.position, unreadable
                break
            plan.next_offset, timestamp_ms, kept = batch.last_offset + 1, batch.max_timestamp_ms, batch.end_position
        if kept > position:
            plan.parts.append(Piece(position, kept))
        if problem is None:
            break
        after = scanner.find_batch(bad + 1, end, plan.next_offset, limit)
        plan.removed.append(Piece(bad, after if after >= 0 else end, problem))
        if after < 0:
            break
        position = after
        header = scanner.read(after, 61)
        first, first_timestamp_ms = int.from_bytes(header[:8], "big"), int.from_bytes(header[27:35], "big", signed=True)
        _fill(plan, first, timestamp_ms if timestamp_ms >= 0 else first_timestamp_ms)
    if next_base is not None:
        _fill(plan, next_base, timestamp_ms)
    return plan


def _fill(plan: SegmentPlan, next_offset: int, timestamp_ms: int) -> None:
    if next_offset > plan.next_offset:
        plan.parts.append(empty_batch(plan.next_offset, next_offset, timestamp_ms))
        plan.filled.append((plan.next_offset, next_offset))
        plan.next_offset = next_offset


def _unreadable(scanner: LogScanner, batch: BatchFacts) -> CorruptionError | None:
    try:
        wrong = scanner.check_records(batch, decompress, DECOMPRESSED_LIMIT_BYTES)
    except CorruptionError as error:
        wrong = (error.message, error.expected, error.got)
    return None if wrong is None else CorruptionError(wrong[0], scanner.path, batch.position, wrong[1], wrong[2])
