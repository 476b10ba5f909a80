"""`penstock verify`: check every batch of a data directory."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import penstock
from penstock.cli.options import DATA_DEFAULT, Data, Json, existing
from penstock.cli.output import bytes_text, print_json, say


def verify(
    topic: Annotated[str | None, typer.Argument(metavar="TOPIC", help="Only this topic.")] = None,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Check every batch, CRC, index and offset. Changes nothing; exit code 1 when problems were found."""
    report = penstock.verify(existing(data), topic=topic)
    if json:
        print_json(_document(report))
    else:
        for problem in report.problems:
            say(
                f"{_place(problem)}: {problem.kind}: {_message(problem)}",
                style="dim" if problem.kind == "foreign" else "red",
            )
        serious = sum(problem.kind != "foreign" for problem in report.problems)
        found = f"{serious} problem{'s' * (serious > 1)}" if serious else "no problems"
        stored = f"{report.segments:,} segments, {report.batches:,} batches, {report.records:,} records"
        say(f"{stored}, {bytes_text(report.size_bytes)}: {found}", style="green" if report.ok else "bold red")
    if not report.ok:
        raise typer.Exit(1)


def _place(problem: Any) -> str:
    return f"{problem.path} at byte {problem.position}" if problem.position >= 0 else str(problem.path)


def _message(problem: Any) -> str:
    if problem.expected is None and problem.got is None:
        return str(problem.message)
    return f"{problem.message} (expected {problem.expected}, got {problem.got})"


def _document(report: penstock.VerifyReport) -> dict[str, Any]:
    """The report as a JSON object."""
    problems = [
        {
            "path": str(problem.path),
            "position": problem.position,
            "kind": str(problem.kind),
            "message": problem.message,
            "expected": None if problem.expected is None else str(problem.expected),
            "got": None if problem.got is None else str(problem.got),
        }
        for problem in report.problems
    ]
    return {
        "ok": report.ok,
        "segments": report.segments,
        "batches": report.batches,
        "records": report.records,
        "size_bytes": report.size_bytes,
        "problems": problems,
    }
