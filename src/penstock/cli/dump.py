"""`penstock dump`: show the batches and records of a segment file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from penstock._native.scan import BatchFacts
from penstock.cli.options import Json
from penstock.cli.output import record_document, record_line, time_text
from penstock.storage import segment_dump
from penstock.storage.compression import codec_name


def dump(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True, help="A segment's .log file.")
    ],
    records: Annotated[bool, typer.Option("--records", help="The records instead of the batches.")] = False,
    json: Json = False,
) -> None:
    """Show the batches of a segment; with --json one JSON object a line.

    Reads the file itself: the data directory is not opened, may be in use, and need not be complete. Every CRC is
    checked; damage ends the output with an error that says where.
    """
    if file.suffix != ".log":
        raise typer.BadParameter(f"{str(file)!r} is not a segment (a .log file)", param_hint="FILE")
    if records:
        for record in segment_dump.iter_records(file):
            _print(record_document(record) if json else record_line(record))
    else:
        for batch in segment_dump.iter_batches(file):
            _print(_batch_document(batch) if json else _batch_line(_batch_document(batch)))
    sys.stdout.flush()


def _print(line: str | dict[str, Any]) -> None:
    text = line if isinstance(line, str) else msgspec.json.encode(line).decode()
    sys.stdout.write(text + "\n")


def _batch_document(batch: BatchFacts) -> dict[str, Any]:
    return {
        "position": batch.position,
        "base_offset": batch.base_offset,
        "last_offset": batch.last_offset,
        "count": batch.count,
        "size_bytes": batch.size_bytes,
        "codec": codec_name(batch.codec),
        "timestamp_type": "LogAppendTime" if batch.log_append_time else "CreateTime",
        "base_timestamp_ms": batch.base_timestamp_ms,
        "max_timestamp_ms": batch.max_timestamp_ms,
        "producer_id": batch.producer_id,
        "producer_epoch": batch.producer_epoch,
        "base_sequence": batch.base_sequence,
        "is_transactional": batch.transactional,
        "is_control": batch.control,
        "crc": batch.crc,
    }


def _batch_line(batch: dict[str, Any]) -> str:
    times = f"{time_text(batch['base_timestamp_ms'])} to {time_text(batch['max_timestamp_ms'])}"
    parts = [
        f"position {batch['position']}",
        f"offsets {batch['base_offset']}-{batch['last_offset']}",
        f"{batch['count']} records",
        f"{batch['size_bytes']} bytes",
        f"codec {batch['codec']}",
        f"{batch['timestamp_type']} {times}",
        f"crc {batch['crc']:08x}",
    ]
    if batch["producer_id"] >= 0:
        who = f"producer {batch['producer_id']} epoch {batch['producer_epoch']}"
        parts.append(f"{who} sequence {batch['base_sequence']}")
    parts += [word for word in ("transactional", "control") if batch[f"is_{word}"]]
    return "  ".join(parts)
