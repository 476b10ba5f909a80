"""`penstock produce`: store the lines of a file in a topic."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import penstock
from penstock.cli.input_file import open_range, split_ranges
from penstock.cli.options import DATA_DEFAULT, Compression, Data, Json, Processes, input_file, worker_count
from penstock.cli.output import note, print_json, rate_text, say
from penstock.cli.progress import ProgressBar
from penstock.cli.record_format import RecordFormat, format_of, read_header
from penstock.cli.workers import run_jobs, seconds_of

DEFAULT_PARTITIONS = 3
LEAST_RANGE_BYTES = 1 << 16  # a worker is not started for less
MAX_PARTITIONS = 10_000


def produce(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic; made if it does not exist.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", callback=input_file, help="The input; - is stdin.")],
    data: Data = DATA_DEFAULT,
    key: Annotated[
        str | None, typer.Option("--key", metavar="FIELD", help="Field of a CSV or JSONL row to use as key.")
    ] = None,
    record_format: Annotated[
        RecordFormat, typer.Option("--format", help="How the input is cut; auto: by its suffix.")
    ] = (RecordFormat.AUTO),
    partitions: Annotated[
        int | None, typer.Option("--partitions", min=1, max=MAX_PARTITIONS, help="Partitions of a new topic (3).")
    ] = None,
    compression: Annotated[
        Compression | None, typer.Option("--compression", help="Codec of the stored batches.")
    ] = None,
    processes: Processes = 1,
    json: Json = False,
) -> None:
    """Store each line of FILE (each row of a CSV, as a JSON object) as a record of TOPIC.

    A line is what stands between line feeds; blank lines of JSONL are skipped. Several processes store several parts of
    the file at the same time, so its order is kept within each part.
    """
    chosen = format_of(str(file)) if record_format is RecordFormat.AUTO else record_format
    if key is not None and chosen is RecordFormat.LINES:
        raise typer.BadParameter("plain lines have no fields; use --format csv or jsonl", param_hint="--key")
    if str(file) == "-" and processes > 1:
        raise typer.BadParameter("stdin is read by one process", param_hint="--processes")
    jobs = plan(topic, file, data, chosen, key, compression, processes)
    ensure_topic(data, topic, partitions)
    total = None if str(file) == "-" else file.stat().st_size
    with ProgressBar(f"storing in {topic}", total) as bar:
        outcomes = run_jobs("produce", jobs, lambda records, size_bytes: bar.update(size_bytes, records, size_bytes))
    records = sum(outcome.result["records"] for outcome in outcomes)
    size_bytes = sum(outcome.result["size_bytes"] for outcome in outcomes)
    seconds = seconds_of(outcomes)
    if json:
        totals = {"records": records, "size_bytes": size_bytes, "seconds": seconds}
        print_json({"topic": topic, **totals, "processes": len(jobs)})
    else:
        say(f"stored {rate_text(records, size_bytes, seconds)} ({len(jobs)} process{'es' * (len(jobs) > 1)})")


def plan(
    topic: str,
    file: Path,
    data: Path,
    record_format: RecordFormat,
    key: str | None,
    compression: Compression | None,
    processes: int,
) -> list[dict[str, Any]]:
    """The jobs for the workers: one for each byte range of the file. Refuses a key field that a CSV does not have."""
    stdin = str(file) == "-"
    header: list[str] = []
    start = 0
    if record_format is RecordFormat.CSV:
        with contextlib.nullcontext(sys.stdin.buffer) if stdin else open_range(str(file), 0) as reader:
            header, start = read_header(reader)
        if key is not None and key not in header:
            known = ", ".join(header) or "no fields"
            raise typer.BadParameter(f"no field {key!r}; the header has {known}", param_hint="--key")
    ranges: list[tuple[int, int | None]] = [(start, None)]
    if not stdin:
        size = file.stat().st_size
        parts = worker_count(processes, (size - start) // LEAST_RANGE_BYTES)
        ranges = [*split_ranges(file, parts, start, quoted=record_format is RecordFormat.CSV)] or [(start, start)]
    common = {
        "data": str(data),
        "topic": topic,
        "file": str(file),
        "format": record_format.value,
        "header": header,
        "key_field": key,
        "compression": None if compression is None else compression.value,
    }
    return [{**common, "start": begin, "stop": stop} for begin, stop in ranges]


def ensure_topic(data: Path, topic: str, partitions: int | None) -> None:
    """Make the topic unless it exists; then say so if it has another number of partitions than was asked for."""
    with penstock.open(data) as broker:
        try:
            broker.create_topic(topic, partitions=partitions or DEFAULT_PARTITIONS)
        except penstock.TopicExistsError:
            existing = broker.topic(topic).partitions
            if partitions is not None and partitions != existing:
                note(f"topic {topic} exists with {existing} partitions; --partitions is for new topics")
