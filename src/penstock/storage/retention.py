"""Deleting old segments: by time and by size, as Kafka's `retention.ms` and `retention.bytes`.

Invariants: whole segments go, oldest first, and the log stays contiguous. Thread and process safety: any; who finds
that somebody else was faster looks again. Crash policy: the log start moves first, files go after it; what is left over
by a process that died is removed by the next deletion or opening.
"""

from __future__ import annotations

import itertools

from penstock.storage.partition_log import PartitionLog
from penstock.storage.segment_file import segment_path


def enforce_retention(log: PartitionLog, now_ms: int) -> int:
    """Delete whole segments past the topic's retention, oldest first; returns the new log start offset.

    By time: segments whose newest record is older than `retention_ms`, the active one included (it is rolled first).
    By size: while what would be left is at least `retention_bytes`, unless the topic refuses new records instead.
    Nothing is deleted with an empty `cleanup_policy`.
    """
    while True:
        before = log.log_start_offset
        try:
            return _enforce(log, now_ms)
        except FileNotFoundError:
            # Another thread or process deleted the segment first; when it did not, the file is really missing.
            if log.log_start_offset == before:
                raise


def _enforce(log: PartitionLog, now_ms: int) -> int:
    config = log.config
    if not config.deletes:
        return log.log_start_offset
    if config.retention_ms >= 0:
        _roll_when_expired(log, now_ms)
    state = log._state()
    bases = log.segments()
    keep_from: int = state["log_start_offset"]
    limit = config.discards_above_bytes
    total = log.size_bytes() if limit >= 0 else 0
    for base, following in itertools.pairwise(bases):
        if following <= keep_from:
            continue  # another thread or process is deleting it
        expired = config.retention_ms >= 0 and now_ms - log._newest_timestamp(base, state) > config.retention_ms
        if not expired and limit >= 0:
            size = segment_path(log.directory, base, ".log").stat().st_size
            expired = total - size >= limit
            total -= size
        if not expired:
            break
        keep_from = following
    if keep_from > state["log_start_offset"]:
        return log.delete_before(keep_from)
    return keep_from


def _roll_when_expired(log: PartitionLog, now_ms: int) -> None:
    state = log._state()
    if state["end_position"] and now_ms - state["max_timestamp_ms"] > log.config.retention_ms:
        log.roll_active()
