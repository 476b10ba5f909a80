"""What a producer stored last in a partition: by the table of the newest producers, or the log's headers.

Thread and process safety: any; the writer lock is taken for a moment and free while headers are read. Crash policy:
nothing is written; the table is only believed for offsets that are published (see `producers.h`).
"""

from __future__ import annotations

import contextlib

from penstock.storage.partition_log import PartitionLog
from penstock.storage.segment_file import segment_path
from penstock.storage.segment_scan import scan_segment


def last_sequence(log: PartitionLog, producer_id: int) -> int:
    """Sequence of the producer's last record in the log, -1 when there is none.

    Once its epoch is over, nothing of an older producer can be stored behind what this returns: appends check the epoch
    under the lock that is taken here.
    """
    known = log.last_sequence(producer_id)
    if known is not None:
        return known
    log._lock()
    state = log._state()
    log._unlock()
    for base in reversed(log.segments()):
        path = segment_path(log.directory, base, ".log")
        end = state["end_position"] if base == state["active_base_offset"] else None
        with contextlib.suppress(FileNotFoundError):  # retention was faster
            batches = scan_segment(path, base, end=end, check_crc=False).batches
            for place in range(len(batches) - 1, -1, -1):
                batch = batches[place]
                if batch.producer_id == producer_id and not batch.control:
                    return (batch.base_sequence + batch.last_offset - batch.base_offset) & 0x7FFFFFFF
    return -1
