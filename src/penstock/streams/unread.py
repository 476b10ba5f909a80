"""What a reader of a partition has before it: the lag."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.errors import OffsetOutOfRangeError
from penstock.storage.partition_log import PartitionLog


@dataclass(frozen=True, slots=True)
class Unread:
    """`records`, from `offset` on, are stored and not read."""

    offset: int
    records: int


def unread(log: PartitionLog, position: int, committed_only: bool) -> Unread:
    """What comes at or after `position` (-1: none yet). `committed_only`: up to the last stable offset.

    Markers, and for `committed_only` the records of aborted transactions, are passed over where they come next.
    """
    while True:
        end = log.last_stable_offset if committed_only else log.log_end_offset
        start = max(position, log.log_start_offset)
        if start >= end:
            return Unread(start, 0)
        try:
            offset = log.next_visible(start, end, log.aborted_in(start, end) if committed_only else None)
        except OffsetOutOfRangeError:
            if log.log_start_offset <= start:
                raise
            continue  # removed at this moment: what is left begins later
        return Unread(offset, end - offset)
