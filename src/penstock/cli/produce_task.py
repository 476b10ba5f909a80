"""Storing a byte range of an input file (or stdin) in a topic."""

from __future__ import annotations

import sys
from typing import Any

import penstock
from penstock.cli.input_file import AvailableReader, Reader, open_range, read_blocks
from penstock.cli.progress import Report
from penstock.cli.record_format import RecordFormat, parse


def run(job: dict[str, Any], report: Report) -> dict[str, Any]:
    """Do the job: `data`, `topic`, `file` ("-" for stdin), `start`, `stop` (None: to the end), `format`, `header`,
    `key_field`, `compression`. Gives `records` and `size_bytes` stored (bytes of input)."""
    if job["file"] == "-":
        return _store(job, AvailableReader(sys.stdin.buffer), None, report)
    with open_range(job["file"], job["start"]) as file:
        return _store(job, file, job["stop"] - job["start"], report)


def _store(job: dict[str, Any], reader: Reader, size: int | None, report: Report) -> dict[str, Any]:
    blocks = read_blocks(reader, size)
    parsed = parse(blocks, RecordFormat(job["format"]), job["header"], job["key_field"], job["start"])
    records = size_bytes = 0
    topic = job["topic"]
    options = {} if job["compression"] is None else {"compression_type": job["compression"]}
    with penstock.open(job["data"]) as broker, broker.producer(**options) as producer:
        for values, keys, taken in parsed:
            producer.send_many(topic, values, keys=keys)
            records += len(values)
            size_bytes += taken
            report(records, size_bytes)
        producer.flush()
    return {"records": records, "size_bytes": size_bytes}
