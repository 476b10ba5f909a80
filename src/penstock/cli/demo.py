"""`penstock demo`: the main job on an order file, with every count and checksum verified."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

import penstock
from penstock.cli.consume import plan_ranges
from penstock.cli.demo_check import Verdict, compare
from penstock.cli.demo_orders import write_orders
from penstock.cli.options import Data, Json, Processes, Start, worker_count
from penstock.cli.output import bytes_text, print_json, print_table, rate_text, say
from penstock.cli.produce import ensure_topic, plan
from penstock.cli.progress import ProgressBar
from penstock.cli.record_format import RecordFormat, format_of, read_header
from penstock.cli.worker import Outcome
from penstock.cli.workers import run_jobs, seconds_of

TOPIC = "demo-orders"
PARTITIONS = 3
DATA = Path("penstock-demo/data")
DEFAULT_RECORDS = 1_000_000
MADE_UP = "penstock-demo-orders.jsonl"
Totals = dict[str, Any]
Job = dict[str, Any]


def demo(
    data: Data = DATA,
    orders: Annotated[
        Path | None,
        typer.Option("--orders", exists=True, dir_okay=False, readable=True, help="Your file: lines, CSV or JSONL."),
    ] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="FIELD", help="The key field of your file.")] = None,
    records: Annotated[
        int, typer.Option("--records", min=1, max=100_000_000, help="Orders to make when no file is given.")
    ] = DEFAULT_RECORDS,
    processes: Processes = 2,
    json: Json = False,
) -> None:
    """Store an order file from several processes, read it back in several, and verify every record.

    Uses a data directory of its own and in it the topic `demo-orders`, which it makes anew each time. Orders that are
    made up go to penstock-demo-orders.jsonl beside the data directory.
    """
    file, key = (orders, key or _likely_key(orders)) if orders is not None else (data.parent / MADE_UP, "customer")
    with penstock.open(data) as broker:
        if TOPIC in broker.topics():
            broker.delete_topic(TOPIC)
    if orders is None:
        write_orders(file, records)
    _tell(json, f"1. input     {file} ({bytes_text(file.stat().st_size)}), key: {key or 'none'}")
    jobs = plan(TOPIC, file, data, format_of(file.name), key, None, processes)
    ensure_topic(data, TOPIC, PARTITIONS)
    stored = _totals(_run("produce", jobs, "storing", file.stat().st_size, by_bytes=True))
    _tell(json, f"2. produced  {_text(stored)}")
    ranges = plan_ranges(data, TOPIC, Start("earliest"), None, follow=False)
    count = worker_count(processes, len(ranges))
    job = {"data": str(data), "topic": TOPIC, "most": None, "format": "none", "lock_fd": None}
    read_jobs = [{**job, "ranges": ranges[number::count]} for number in range(count)]
    read = _totals(_run("consume", read_jobs, "reading", stored["records"]))
    _tell(json, f"3. consumed  {_text(read)}")
    verdict = _check(data, jobs, read_jobs, stored, read)
    _show(json, stored, read, verdict, data)
    if not verdict.ok:
        raise typer.Exit(1)


def _likely_key(file: Path) -> str | None:
    """The field of a CSV that names the customer, or else its first one."""
    if format_of(file.name) is not RecordFormat.CSV:
        return None
    with open(file, "rb") as reader:
        header, _ = read_header(reader)
    return next((field for field in header if "customer" in field.lower()), header[0] if header else None)


def _run(task: str, jobs: list[Job], label: str, total: int, by_bytes: bool = False) -> list[Outcome]:
    with ProgressBar(label, total) as bar:
        return run_jobs(task, jobs, lambda records, size: bar.update(size if by_bytes else records, records, size))


def _totals(outcomes: list[Outcome]) -> Totals:
    return {
        "records": sum(outcome.result["records"] for outcome in outcomes),
        "size_bytes": sum(outcome.result["size_bytes"] for outcome in outcomes),
        "seconds": seconds_of(outcomes),
        "processes": len(outcomes),
    }


def _check(data: Path, jobs: list[Job], read_jobs: list[Job], stored: Totals, read: Totals) -> Verdict:
    """Fingerprint the file and the topic, compare them partition by partition, and verify the files on the disk."""
    out = tempfile.mkdtemp(prefix="penstock-check-")
    checks = [
        *({**job, "task": "check-input", "partitions": PARTITIONS, "number": n} for n, job in enumerate(jobs)),
        *({**job, "task": "check-topic"} for job in read_jobs),
    ]
    try:
        outcomes = _run("check", [{**job, "out": out} for job in checks], "checking", 2 * stored["records"])
        verdict = compare(Path(out), PARTITIONS)
    finally:
        shutil.rmtree(out)
    expected, found = outcomes[: len(jobs)], outcomes[len(jobs) :]
    counts = [sum(outcome.result["records"] for outcome in part) for part in (expected, found)]
    counts += [stored["records"], read["records"]]
    if len(set(counts)) > 1:
        verdict.problems.append(f"counts of input, topic, produced and consumed differ: {counts}")
    if not all(outcome.result["dense"] for outcome in found):
        verdict.problems.append("offsets are not dense")
    report = penstock.verify(data, topic=TOPIC)
    verdict.batches = report.batches
    verdict.problems += (f"{problem.path} at byte {problem.position}: {problem.message}" for problem in report.problems)
    return verdict


def _text(totals: Totals) -> str:
    rate = rate_text(totals["records"], totals["size_bytes"], totals["seconds"])
    return f"{rate} ({totals['processes']} process{'es' * (totals['processes'] > 1)})"


def _tell(json: bool, line: str) -> None:
    if not json:
        say(line)


def _show(json: bool, stored: Totals, read: Totals, verdict: Verdict, data: Path) -> None:
    if json:
        rows = [{"partition": n, "records": c, "checksum": s} for n, c, s in verdict.partitions]
        document = {"ok": verdict.ok, "problems": verdict.problems, "batches": verdict.batches, "partitions": rows}
        print_json({**document, "produced": stored, "consumed": read})
        return
    if verdict.ok:
        say(f"4. verified  every order exactly once, offsets dense, {verdict.batches:,} batches with correct CRC")
    table = [(number, f"{count:,}", checksum) for number, count, checksum in verdict.partitions]
    print_table(("PARTITION", "RECORDS", "CHECKSUM OF THE SET"), table, numbers=(0, 1))
    for problem in verdict.problems:
        say(f"PROBLEM: {problem}", style="bold red")
    where = f"--data {data}"
    if verdict.ok:
        say("every count and checksum agrees", style="bold green")
        say("What to explore next:", style="bold")
        say(f"  penstock consume {TOPIC} {where} --max 5 --format full")
        say(f"  penstock topics describe {TOPIC} {where}")
        say(f"  penstock dump {data}/{TOPIC}-0/{0:020d}.log | head")
        say(f"  penstock produce {TOPIC} YOUR_FILE {where}    # while another terminal runs:")
        say(f"  penstock consume {TOPIC} {where} --follow")
        say(f"  penstock bench {where}")
