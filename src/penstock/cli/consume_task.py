"""Reading partitions of a topic to stdout."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

import penstock
from penstock import TopicPartition
from penstock.cli.output import record_document, record_line
from penstock.cli.progress import Report

IDLE_S = 1.0
WRITE_BYTES = 1 << 20


def run(job: dict[str, Any], report: Report) -> dict[str, Any]:
    """Do the job: `data`, `topic`, `ranges` ([partition, start offset, end offset or None to follow]), `most` (records, or
    None), `format` (value, json, full or none), `lock_fd` (None when no other process writes). Gives `records` and
    `size_bytes` read (bytes of values)."""
    reading = _Reading(job, report)
    with penstock.open(job["data"]) as broker, broker.consumer() as consumer:
        partitions = [TopicPartition(job["topic"], number) for number, _, _ in job["ranges"]]
        consumer.assign(partitions)
        for partition, (_, start, _) in zip(partitions, job["ranges"], strict=True):
            consumer.seek(partition, start)
        try:
            reading.read(consumer)
        except KeyboardInterrupt:
            if not job["follow"]:
                raise
            raise
        finally:
            reading.finish()
    return {"records": reading.records, "size_bytes": reading.size_bytes}
