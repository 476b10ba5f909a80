"""The command: what to run, progress, results."""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.compare import bars, catalog, charts, page, report
from bench.compare.results import collect
from bench.compare.runner import Plan, Runner
from bench.compare.state import State
from bench.compare.systems import all_systems
from bench.compare.turn import Sizes
from bench.environment import environment

RESULTS = Path(__file__).parents[1] / "results"
TURN_S, QUICK_TURN_S = 3.6, 0.8  # of one turn on average, for the estimate


def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for, print the tables, keep the files."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupted)
    console = Console()
    results = run(options, console)
    found = bars.bars(results)
    results["bars"] = [bar.to_dict() for bar in found]
    text = report.markdown(results, found)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    out = options.out or (options.data / "results" if partial(options) else RESULTS)
    keep(out, results, text)
    console.print(f"kept in {out}")


def partial(options: argparse.Namespace) -> bool:
    """Whether this is less than the whole: its results do not replace the kept ones."""
    return bool(options.quick or options.systems or options.workloads)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Everything up to the results."""
    plan = _plan(options)
    asked = {
        "quick": options.quick,
        "rounds": plan.rounds,
        "systems": [system.name for system in plan.systems],
        "workloads": [workload.name for workload in plan.workloads],
    }
    state = State(options.data / "state.jsonl", asked, resume=options.resume)
    columns = (TextColumn("{task.description:<50}"), BarColumn(), MofNCompleteColumn())
    with (
        Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, auto_refresh=False) as progress,
        Runner(plan, state, lambda words: progress.update(task, description=words[:50], refresh=True)) as runner,
    ):
        task = progress.add_task("preparing", total=None)
        runner.prepare()
        count = runner.count()
        seconds = (count - len(state)) * (QUICK_TURN_S if options.quick else TURN_S)
        console.print(f"{count} turns, {len(state)} of them done before; about {seconds / 60:.0f} minutes")
        progress.update(task, total=count)
        runner.run(lambda: progress.advance(task))
        return collect(runner, environment(options.data), options.quick)


def keep(directory: Path, results: dict[str, Any], text: str) -> None:
    """The JSON, the Markdown and the charts."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "compare.json").write_text(json.dumps(results, separators=(",", ":")).replace('},"', '},\n"') + "\n")
    (directory / "compare.md").write_text(text)
    (directory / "compare.html").write_text(page.html(results))
    charts.draw(results, directory)


def _plan(options: argparse.Namespace) -> Plan:
    systems = all_systems(options.kafka_bootstrap)
    names = options.systems or list(systems)
    if unknown := [name for name in names if name not in systems]:
        raise SystemExit(f"unknown systems {unknown}; there are {', '.join(systems)}")
    try:
        workloads = catalog.by_name(options.workloads)
    except KeyError as error:
        raise SystemExit(str(error.args[0])) from None
    options.data.mkdir(parents=True, exist_ok=True)
    cache = options.data / "cache"
    cache.mkdir(exist_ok=True)
    return Plan(
        [system for name, system in systems.items() if name in names],
        workloads,
        options.rounds or (1 if options.quick else 2),
        Sizes.quick() if options.quick else Sizes(),
        Path(tempfile.mkdtemp(prefix="run-", dir=options.data.resolve())),
        cache.resolve(),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("--systems", type=_names, help="comma separated; default all")
    parser.add_argument("--workloads", type=_names, help="comma separated; default all")
    parser.add_argument("--rounds", type=int, help="turns of each side at each workload (default 2, quick 1)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--resume", action="store_true", help="keep the finished turns of an interrupted run")
    parser.add_argument("--kafka-bootstrap", metavar="HOST:PORT", help="a Kafka that is running instead of our own")
    parser.add_argument("--data", type=Path, default=Path("penstock-compare"), help="work directory and downloads")
    parser.add_argument("--out", type=Path, help="where results go (default bench/results for a whole run)")
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
