"""Walking the batches of a log file that cannot be trusted: for recovery, verify, repair and dump.

Reads any bytes safely; stops at the first batch that is not whole. Does not need, or disturb, a broker.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path

from crc32c import crc32c

from penstock.errors import CorruptionError

HEADER = struct.Struct(">qiibIhiqqqhii")  # the 61 bytes of a RecordBatch v2 header
HEADER_BYTES = HEADER.size
OVERHEAD_BYTES = 12
CRC_START = 21
MAGIC_POSITION = 16


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """What a batch's header says, and where it lies."""

    position: int
    base_offset: int
    last_offset: int
    count: int
    size_bytes: int
    attributes: int
    base_timestamp_ms: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    crc: int

    @property
    def codec(self) -> int:
        """Kafka's codec number."""
        return self.attributes & 7

    @property
    def is_log_append_time(self) -> bool:
        """Whether records carry the time at which they were stored."""
        return bool(self.attributes & 8)

    @property
    def is_transactional(self) -> bool:
        """Whether the batch is part of a transaction."""
        return bool(self.attributes & 16)

    @property
    def is_control(self) -> bool:
        """Whether the batch holds a control record."""
        return bool(self.attributes & 32)


@dataclass(slots=True)
class SegmentScan:
    """The good batches of a file up to `valid_end`, and the `problem` that ended the walk, if one did.

    `good_data_after`: a whole batch was found somewhere past the problem.
    """

    batches: list[BatchFacts] = field(default_factory=list)
    valid_end: int = 0
    problem: CorruptionError | None = None
    good_data_after: bool = False


def scan_segment(path: Path, base_offset: int, start: int = 0, end: int | None = None, check_crc: bool = True) -> SegmentScan:
    """Walk the batches of `path` from `start` to `end` (default: of the file). Zeros at the end are not a problem."""
    scan = SegmentScan(valid_end=start)
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        if size == 0:
            return scan
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
            limit = size if end is None else min(size, end)
            expected = base_offset
            while scan.valid_end < limit:
                found = read_batch(view, scan.valid_end, limit, expected, path, check_crc)
                if isinstance(found, CorruptionError):
                    if not _only_zeros(view, scan.valid_end, limit):
                        scan.problem = found
                        scan.good_data_after = next_batch(view, scan.valid_end + 1, limit, expected) is not None
                    break
                scan.batches.append(found)
                expected = found.last_offset + 1
                scan.valid_end += found.size_bytes
    return scan


def read_batch(
    view: memoryview, position: int, limit: int, least_offset: int, path: Path, check_crc: bool = True
) -> BatchFacts | CorruptionError:
    """The batch at `position`, or what is wrong with it."""

    def wrong(message: str, expected: object, got: object) -> CorruptionError:
        return CorruptionError(message, str(path), position, expected, got)

    if limit - position < HEADER_BYTES:
        return wrong("a batch header is cut", f"{HEADER_BYTES} bytes", f"{limit - position} bytes")
    base, length, _, magic, crc, attributes, delta, first, newest, pid, epoch, sequence, count = HEADER.unpack_from(
        view, position
    )
    size = length + OVERHEAD_BYTES
    if not HEADER_BYTES <= size <= limit - position:
        return wrong("a batch claims an impossible size", f"{HEADER_BYTES} to {limit - position}", size)
    if magic != 2:
        return wrong("unknown record batch version", 2, magic)
    if base < least_offset or delta < 0 or count < 0 or count > delta + 1:
        return wrong("a batch header contradicts itself", f"offset {least_offset} or later", f"{base}, {count} records")
    if check_crc:
        with view[position + CRC_START : position + size] as covered:
            computed = crc32c(covered)
        if computed != crc:
            return wrong("CRC-32C does not match", f"0x{crc:08x}", f"0x{computed:08x}")
    return BatchFacts(
        position, base, base + delta, count, size, attributes, first, newest, pid, epoch, sequence, crc
    )


def next_batch(view: memoryview, position: int, limit: int, least_offset: int) -> BatchFacts | None:
    """The first whole batch (by its CRC) at or after `position`."""
    haystack = view.obj
    assert isinstance(haystack, mmap.mmap)
    while True:
        found = haystack.find(b"\x02", position + MAGIC_POSITION, limit)
        if found < 0:
            return None
        position = found - MAGIC_POSITION
        batch = read_batch(view, position, limit, least_offset, Path())
        if isinstance(batch, BatchFacts) and batch.count > 0:
            return batch
        position += 1


def _only_zeros(view: memoryview, start: int, end: int) -> bool:
    step = 1 << 20
    zeros = bytes(step)
    for position in range(start, end, step):
        piece = view[position : min(position + step, end)]
        if piece != zeros[: len(piece)]:
            return False
    return True
