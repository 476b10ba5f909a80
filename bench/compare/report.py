"""The Markdown page of a run: bars, a table a kind of workload, settings, what is missing and why."""

from __future__ import annotations

from typing import Any

from bench.compare import profile
from bench.compare.bars import Bar, table
from bench.compare.clients.penstock import HOT_PATHS

Results = dict[str, Any]
COMPARABLE = """\
Penstock, SQLite, LMDB, RocksDB and Chronicle Queue are libraries: a call, no network. Kafka, Redis, RabbitMQ and NATS
are servers: every message crosses a socket of the loopback interface, and other machines can reach them, replicate,
authenticate. A ratio between the two kinds says what an application on one machine gains by not needing a server; it
says nothing about clusters. Java tools count bytes and make no Python objects; "columns" make none either. A log
(Kafka, streams) and a queue that deletes (RabbitMQ classic) do different work for a message. Where a library's clients
share files, the work of the server is in the client's CPU time."""


def markdown(results: Results, found: list[Bar]) -> str:
    """The whole page."""
    parts = [
        "# Penstock beside Kafka and others",
        _heading(results),
        "## Bars",
        table(found),
        "## Where the time goes",
        profile.section(results, found, profile.kept()),
        "## What is comparable",
        COMPARABLE,
        "## Figures",
        *(_workload(results, name) for name in results["workloads"]),
        "## How each was set",
        _settings(results),
        "## Absent",
        _absent(results),
    ]
    return "\n\n".join(parts) + "\n"


def short(value: float) -> str:
    """A number for people."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.3g}"


def _heading(results: Results) -> str:
    machine = ", ".join(f"{name} {value}" for name, value in results["environment"].items())
    quick = " A quick run: the figures only show that everything works." if results["quick"] else ""
    return (
        f"{results['date']}, medians of {results['rounds']} interleaved rounds, made by `python -m bench.compare`."
        f"{quick} Machine: {machine}."
    )


def _workload(results: Results, name: str) -> str:
    about = results["workloads"][name]
    if name.startswith("latency"):
        columns = {
            "p50_us": "p50 us",
            "p99_us": "p99 us",
            "p999_us": "p99.9 us",
            "max_us": "max us",
            "stolen_percent": "stolen %",
        }
    elif name == "start":
        columns = {"figure": "ms", "with_client_process_ms": "with a new client process, ms"}
    elif name == "footprint":
        columns = {
            "figure": "CPU s, all",
            "client_cpu_s": "client",
            "server_cpu_s": "server",
            "client_private_mib": "client private MiB",
            "server_private_mib": "server private MiB",
            "server_resident_mib": "server resident MiB",
        }
    elif name == "metrics-cost":
        columns = {"figure": "% at worst", **{f"{path}_percent": path for path in HOT_PATHS}}
    else:
        columns = {
            "figure": about["unit"],
            "client_cpu_us": "client CPU us",
            "server_cpu_us": "server CPU us",
            "disk_bytes": "disk bytes",
        }
    return f"### {about['title']} (`{name}`, {about['durability']})\n\n" + _rows(results, name, columns)


def _rows(results: Results, name: str, columns: dict[str, str]) -> str:
    lines = [f"| | {' | '.join(columns.values())} |", "|---|" + "---:|" * len(columns)]
    cells, sides = results["cells"][name], results["sides"]
    measured = {side: cell for side, cell in cells.items() if "figure" in cell}
    less = results["workloads"][name]["less_is_better"]
    for side in sorted(measured, key=lambda side: measured[side]["figure"] * (1 if less else -1)):
        about, cell = sides[side], measured[side]
        figures = [short(cell[column]) if column in cell else "" for column in columns]
        lines.append(f"| {about['label']} ({about['language']}, {about['where']}) | {' | '.join(figures)} |")
    for side, cell in cells.items():
        if "failed" in cell:
            lines.append(f"| {sides[side]['label']} | failed: {_plain(cell['failed'])} |" + " |" * (len(columns) - 1))
    return "\n".join(lines) + _not_applicable(cells, sides)


def _not_applicable(cells: dict[str, Any], sides: dict[str, Any]) -> str:
    reasons = [
        f"{sides[side]['label']} ({cell['n/a']})"
        for side, cell in cells.items()
        if cell.get("n/a") not in (None, "not measured for this variant")
    ]
    return f"\n\nn/a: {', '.join(reasons)}." if reasons else ""


def _settings(results: Results) -> str:
    lines = ["| | client | where | settings | durability |", "|---|---|---|---|---|"]
    for side in results["sides"].values():
        kind = "" if side["tuned"] else " (defaults)"
        words = [f"{side['label']}{kind}", side["language"], side["where"], side["settings"], side["durability"]]
        lines.append(f"| {' | '.join(words)} |")
    versions = [system["version"] for system in results["systems"].values() if "version" in system]
    return "\n".join(lines) + f"\n\nVersions: {'; '.join(versions)}."


def _absent(results: Results) -> str:
    lines = [
        f"- {name}: {_plain(system['absent'])}" for name, system in results["systems"].items() if "absent" in system
    ]
    gone = {
        side: cell["absent"]
        for row in results["cells"].values()
        for side, cell in row.items()
        if "absent" in cell and "absent" not in results["systems"][results["sides"][side]["system"]]
    }
    lines += [f"- {results['sides'][side]['label']}: {_plain(reason)}" for side, reason in gone.items()]
    return "\n".join(lines) if lines else "Nothing: every system was measured."


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")
