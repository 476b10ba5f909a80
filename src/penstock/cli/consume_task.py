"""Reading ranges of a topic's partitions, to stdout or just to count them."""

from __future__ import annotations

import fcntl
import sys
from typing import Any

import msgspec

import penstock
from penstock import Record, TopicPartition
from penstock.cli.output import record_document, record_line
from penstock.cli.progress import Report

IDLE_S = 1.0
WRITE_BYTES = 1 << 20
POLL_RECORDS = 1000


def run(job: dict[str, Any], report: Report) -> dict[str, Any]:
    """Do the job: `data`, `topic`, `ranges` ([partition, start offset, end offset or None to follow]), `most`
    (records, or None), `format` (value, json, full; none: count only), `lock_fd` (None when no other process writes).
    Gives `records` and `size_bytes` read (bytes of values)."""
    partitions = {TopicPartition(job["topic"], number): (start, end) for number, start, end in job["ranges"]}
    with penstock.open(job["data"]) as broker, broker.consumer() as consumer:
        consumer.assign(list(partitions))
        for partition, (start, _) in partitions.items():
            consumer.seek(partition, start)
        output = _Output(job["lock_fd"])
        reading = _Reading(consumer, output, {partition: end for partition, (_, end) in partitions.items()}, job)
        try:
            reading.run(report)
        finally:
            output.flush()
    return {"records": reading.records, "size_bytes": reading.size_bytes}


class _Output:
    """Lines to stdout in large writes that are whole lines; in turn with other processes when there is a lock file."""

    def __init__(self, lock_fd: int | None) -> None:
        self._lock_fd = lock_fd
        self._parts: list[bytes] = []
        self.held_bytes = 0

    def add(self, lines: bytes) -> None:
        """Whole lines, with the last line end."""
        self._parts.append(lines)
        self.held_bytes += len(lines)
        if self.held_bytes >= WRITE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        parts, self._parts, self.held_bytes = self._parts, [], 0
        if not parts:
            return
        if self._lock_fd is not None:
            fcntl.lockf(self._lock_fd, fcntl.LOCK_EX)
        try:
            sys.stdout.buffer.write(b"".join(parts))
            sys.stdout.buffer.flush()
        finally:
            if self._lock_fd is not None:
                fcntl.lockf(self._lock_fd, fcntl.LOCK_UN)


class _Reading:
    """Reads each partition up to its end (for ever where that is None), at most `job["most"]` records in all."""

    def __init__(
        self, consumer: penstock.Consumer, output: _Output, ends: dict[TopicPartition, int | None], job: dict[str, Any]
    ) -> None:
        self.records = 0
        self.size_bytes = 0
        self._consumer = consumer
        self._output = output
        self._ends = ends
        self._left: int | None = job["most"]
        self._format: str = job["format"]
        self._encode = msgspec.json.Encoder().encode

    def run(self, report: Report) -> None:
        """Read until every end is reached."""
        whole_batches = self._format in ("value", "none")
        self._retire(set(self._ends))
        while self._ends and self._left != 0:
            touched = self._take_batches() if whole_batches else self._take_records()
            report(self.records, self.size_bytes)
            if not touched:
                self._output.flush()
            self._retire(touched or set(self._ends))

    def _retire(self, partitions: set[TopicPartition]) -> None:
        """Read no more of the partitions that reached their end."""
        for partition in partitions:
            end = self._ends.get(partition)
            if end is not None and self._consumer.position(partition) >= end:
                self._consumer.pause(partition)
                del self._ends[partition]

    def _wait_s(self) -> float:
        return 0.0 if self._output.held_bytes else IDLE_S

    def _take_batches(self) -> set[TopicPartition]:
        touched = set()
        for batch in self._consumer.poll_batches(timeout=self._wait_s()):
            partition = TopicPartition(batch.topic, batch.partition)
            touched.add(partition)
            values = batch.values()
            end = self._ends.get(partition)
            if end is not None and batch.last_offset >= end:
                values = values[: int(batch.offsets.searchsorted(end))]
            if self._left is not None:
                values = values[: self._left]
                self._left -= len(values)
            if None in values:
                values = [value or b"" for value in values]
            lines = b"\n".join(values)  # type: ignore[arg-type]  # no None is left
            self.records += len(values)
            self.size_bytes += len(lines) - max(0, len(values) - 1)
            if values and self._format == "value":
                self._output.add(lines + b"\n")
        return touched

    def _take_records(self) -> set[TopicPartition]:
        touched = set()
        most = POLL_RECORDS if self._left is None else min(POLL_RECORDS, self._left)
        for record in self._consumer.poll(max_records=most, timeout=self._wait_s()):
            partition = TopicPartition(record.topic, record.partition)
            touched.add(partition)
            end = self._ends.get(partition)
            if end is not None and record.offset >= end:
                continue
            self.records += 1
            self.size_bytes += len(record.value or b"")
            if self._left is not None:
                self._left -= 1
            self._output.add(self._line(record))
        return touched

    def _line(self, record: Record) -> bytes:
        text = self._encode(record_document(record)) if self._format == "json" else record_line(record).encode()
        return text + b"\n"
