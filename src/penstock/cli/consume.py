"""`penstock consume`: read the records of a topic."""

from __future__ import annotations

import contextlib
import enum
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import penstock
from penstock import TopicPartition
from penstock.cli.options import DATA_DEFAULT, Data, Processes, Start, existing, parse_start, worker_count
from penstock.cli.output import note, rate_text
from penstock.cli.progress import ProgressBar
from penstock.cli.workers import run_jobs, seconds_of, shared_lock_file

ReadRange = tuple[int, int, int | None]  # partition, start offset, end offset


class ConsumeFormat(enum.StrEnum):
    """What is printed of a record."""

    VALUE = "value"
    JSON = "json"
    FULL = "full"


def consume(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic.")],
    data: Data = DATA_DEFAULT,
    start: Annotated[
        str,
        typer.Option("--from", metavar="WHERE", help="earliest, latest, OFFSET, @MILLISECONDS or a time (ISO 8601)."),
    ] = "earliest",
    partition: Annotated[int | None, typer.Option("--partition", min=0, help="Only this partition.")] = None,
    most: Annotated[int | None, typer.Option("--max", min=1, metavar="N", help="At most N records.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more records until Ctrl-C.")] = False,
    record_format: Annotated[
        ConsumeFormat, typer.Option("--format", help="The value only, or all of the record as JSON or text.")
    ] = ConsumeFormat.VALUE,
    processes: Processes = 1,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Print the records of TOPIC, up to what is stored now. Each partition comes in order; they take turns.

    With --format value (the default) the values go to stdout as they are, one a line; a null value is an empty line.
    """
    where = parse_start(start)
    if most is not None and processes > 1:
        raise typer.BadParameter("--max counts in one process", param_hint="--processes")
    ranges = plan_ranges(existing(data), topic, where, partition, follow)
    if not ranges:
        note(f"nothing to read in {topic}")
        return
    count = worker_count(processes, len(ranges))
    job: dict[str, Any] = {
        "data": str(data),
        "topic": topic,
        "most": most,
        "format": ConsumeFormat.JSON.value if json else record_format.value,
        "lock_fd": None,
    }
    total = None if follow else sum(end - begin for _, begin, end in ranges if end is not None)
    bar = ProgressBar(f"reading {topic}", total if most is None else most, enabled=not sys.stdout.isatty())
    with shared_lock_file() if count > 1 else contextlib.nullcontext(None) as lock_fd, bar:
        if lock_fd is not None:
            job.update(lock_fd=lock_fd, pass_fds=[lock_fd])
        jobs = [{**job, "ranges": ranges[number::count]} for number in range(count)]
        outcomes = run_jobs("consume", jobs, lambda records, size_bytes: bar.update(records, records, size_bytes))
    records = sum(outcome.result["records"] for outcome in outcomes)
    size_bytes = sum(outcome.result["size_bytes"] for outcome in outcomes)
    note(f"read {rate_text(records, size_bytes, seconds_of(outcomes))}")


def plan_ranges(data: Path, topic: str, where: Start, partition: int | None, follow: bool) -> list[ReadRange]:
    """What is to be read: without an end to follow; otherwise without empty ranges."""
    with penstock.open(data) as broker, broker.consumer() as consumer:
        numbers = range(broker.topic(topic).partitions) if partition is None else [partition]
        partitions = [TopicPartition(topic, number) for number in numbers]
        begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        if where.kind == "offset":
            starts = {tp: min(max(where.value, begins[tp]), ends[tp]) for tp in partitions}
        elif where.kind == "timestamp":
            consumer.assign(partitions)
            starts = {tp: consumer.seek_to_timestamp(tp, where.value) for tp in partitions}
        else:
            starts = begins if where.kind == "earliest" else ends
        if follow:
            return [(tp.partition, starts[tp], None) for tp in partitions]
        return [(tp.partition, starts[tp], ends[tp]) for tp in partitions if starts[tp] < ends[tp]]
