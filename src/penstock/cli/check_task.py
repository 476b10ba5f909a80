"""Fingerprints of records, so that what was read can be compared with what was in the input file.

A fingerprint is 64 bits of BLAKE2b over key and value. They are written to files of native uint64, in any order.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Any

import penstock
from penstock import TopicPartition
from penstock._native.murmur2 import partition_for_key
from penstock.cli.input_file import open_range, read_blocks
from penstock.cli.progress import Report
from penstock.cli.record_format import RecordFormat, parse


def fingerprint(key: bytes | None, value: bytes | None) -> bytes:
    """8 bytes that identify a record's key and value."""
    head = b"\0" if key is None else b"\1%d:%b" % (len(key), key)
    return blake2b(head + (value or b""), digest_size=8).digest()


def run_input(job: dict[str, Any], report: Report) -> dict[str, Any]:
    """What a byte range of the input should become. The job is that of `produce_task`, and `partitions`, `out`
    (a directory), `number`. Writes `expected-<partition>-<number>`; partition -1 for records without a key."""
    partitions: int = job["partitions"]
    found: dict[int, list[bytes]] = {}
    records = size_bytes = 0
    with open_range(job["file"], job["start"]) as file:
        blocks = read_blocks(file, job["stop"] - job["start"])
        record_format = RecordFormat(job["format"])
        for values, keys, taken in parse(blocks, record_format, job["header"], job["key_field"], job["start"]):
            for value, key in zip(values, keys or [None] * len(values), strict=True):
                place = -1 if key is None else partition_for_key(key, partitions)
                found.setdefault(place, []).append(fingerprint(key, value))
            records += len(values)
            size_bytes += taken
            report(records, size_bytes)
    for place, marks in found.items():
        Path(job["out"], f"expected-{place}-{job['number']}").write_bytes(b"".join(marks))
    return {"records": records, "size_bytes": size_bytes}


def run_topic(job: dict[str, Any], report: Report) -> dict[str, Any]:
    """What is stored. The job: `data`, `topic`, `ranges` ([partition, start, end]), `out`. Writes `stored-<partition>`;
    gives `dense`: whether the offsets of every partition are all there, each once, in order."""
    records = size_bytes = 0
    dense = True
    with penstock.open(job["data"]) as broker:
        for number, start, end in job["ranges"]:
            marks: list[bytes] = []
            place = start
            with broker.consumer() as consumer:
                partition = TopicPartition(job["topic"], number)
                consumer.assign([partition])
                consumer.seek(partition, start)
                while place < end and (batches := consumer.poll_batches(timeout=1.0)):
                    for batch in batches:
                        dense &= batch.base_offset == place and batch.last_offset - place + 1 == batch.count
                        place = batch.last_offset + 1
                        marks += map(fingerprint, batch.keys(), batch.values())
                        records += batch.count
                        size_bytes += int(batch.value_lengths.clip(0).sum())
                    report(records, size_bytes)
            dense &= place == end
            Path(job["out"], f"stored-{number}").write_bytes(b"".join(marks))
    return {"records": records, "size_bytes": size_bytes, "dense": dense}
