"""`python -m bench.events`: the event-driven patterns, beside the `eventsourcing` package on SQLite, in one run."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import aggregates, event_store, sagas
from bench.environment import environment
from bench.event_patterns import EventPatterns
from bench.measure import Result, table
from examples.orders import main as orders
from examples.orders.data import read_orders

PARTS = ("store", "aggregates", "patterns", "sagas", "orders")
RESULTS = Path(__file__).parent / "results" / "events.json"


def main() -> None:
    """Run, print the table, keep the JSON (of a whole run with --full)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument(
        "--full", action="store_true", help="10 million streams and 10 million remembered ids: minutes, 6 GB of disk"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=Path("penstock-bench"), help="where files are made, then removed")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    options.data.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(dir=options.data))
    try:
        found = environment(directory)
        for name, value in found.items():
            print(f"{name}: {value}")
        results = run(directory, rounds, options.only, options.quick, options.full)
    finally:
        shutil.rmtree(directory)
    print(f"\nmedians of {rounds} rounds\n")
    print(table(results))
    if options.full and not options.quick and options.only is None:
        kept = {
            "date": time.strftime("%Y-%m-%d"),
            "rounds": rounds,
            "environment": found,
            "results": [result.to_dict() for result in results],
        }
        RESULTS.write_text(json.dumps(kept, indent=2) + "\n")


def run(directory: Path, rounds: int, only: str | None, quick: bool, full: bool) -> list[Result]:
    """The parts asked for, each in a directory of its own that goes afterwards."""
    streams = [2_000, 4_000] if quick else [100_000, 10_000_000 if full else 1_000_000]
    ids = 2_000 if quick else 10_000_000 if full else 200_000
    parts: dict[str, Callable[[Path], list[Result]]] = {
        "store": lambda path: event_store.run(path, 3_000 if quick else 300_000, rounds, streams),
        "aggregates": lambda path: aggregates.run(path, 50 if quick else 1_000, rounds * 10),
        "patterns": lambda path: EventPatterns(path, 2_000 if quick else 100_000, rounds, ids).run(),
        "sagas": lambda path: sagas.run(path, 60 if quick else 50_000, rounds),
        "orders": lambda path: order_system(path, 200 if quick else None),
    }
    results: list[Result] = []
    for name in PARTS if only is None else [only]:
        path = directory / name
        path.mkdir()
        results += parts[name](path)
        shutil.rmtree(path)
    return results


def order_system(directory: Path, count: int | None) -> list[Result]:
    """Both ways, with all faults on."""
    results = []
    placed, source = read_orders(None, count)
    for how in orders.SYSTEMS:
        balance, facts = orders.run(how, directory / how, placed, orders.Settings(plain=True))
        if not balance.balanced:
            raise AssertionError(f"{how} did not balance: {balance.problems}")
        seconds = facts["seconds"]
        name = f"{facts['orders']:,} orders ({source}) by {how}, all faults on, balanced"
        results.append(Result(name, seconds, 30, "s", seconds / 30, 1, True))
    return results


if __name__ == "__main__":
    main()
