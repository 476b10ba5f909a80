"""`python -m bench.peers`: Penstock beside RocksDB, LMDB, SQLite, litequeue, Redis, bare native loops, in one run."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from bench.compaction import CompactionBench
from bench.endurance import Endurance
from bench.environment import environment
from bench.groups import Groups
from bench.latency import Latency
from bench.measure import Result, table
from bench.opening import Opening
from bench.queues import Queues
from bench.reading import Reading
from bench.transactions import TransactionBench
from bench.writing import Writing

PARTS = ("writing", "reading", "latency", "opening", "groups", "transactions", "compaction", "queues", "endurance")
RESULTS = Path(__file__).parent / "results" / "peers.json"


def main() -> None:
    """Run, print the table, keep the JSON (not with --quick)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs; nothing is kept")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument(
        "--full", action="store_true", help="20 GB, 10^8 records, 5 * 10^7 messages: takes disk and minutes"
    )
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=Path("penstock-bench"), help="where files are made, then removed")
    options = parser.parse_args()
    records, rounds = (20_000, 1) if options.quick else (options.records, options.rounds)
    options.data.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(dir=options.data))
    try:
        found = environment(directory)
        for name, value in found.items():
            print(f"{name}: {value}")
        results = run(directory, records, rounds, options.only, options.quick, options.full)
    finally:
        shutil.rmtree(directory)
    print(f"\n{records:,} records of 100 bytes, medians of {rounds} interleaved rounds\n")
    print(table(results))
    if not options.quick and options.only is None:
        RESULTS.parent.mkdir(exist_ok=True)
        kept = {
            "date": time.strftime("%Y-%m-%d"),
            "records": records,
            "rounds": rounds,
            "environment": found,
            "results": [result.to_dict() for result in results],
        }
        RESULTS.write_text(json.dumps(kept, indent=2) + "\n")


def run(directory: Path, records: int, rounds: int, only: str | None, quick: bool, full: bool) -> list[Result]:
    """The groups asked for."""
    results: list[Result] = []
    if only in (None, "writing"):
        results += Writing(directory, records, rounds).run()
    if only in (None, "reading"):
        results += Reading(directory, records, rounds).run()
    if only in (None, "latency"):
        results += Latency(directory, rounds, quick).run()
    if only in (None, "opening"):
        results += Opening(directory, rounds, quick, full).run()
    if only in (None, "groups"):
        results += Groups(directory, records, rounds, quick).run()
    if only in (None, "transactions"):
        results += TransactionBench(directory, records, rounds).run()
    if only in (None, "compaction"):
        results += CompactionBench(directory, records, full).run()
    if only in (None, "queues"):
        results += Queues(directory, records, rounds, quick, full).run()
    if only == "endurance" or (full and only is None):
        results += Endurance(directory, full and not quick).run()
    return results


if __name__ == "__main__":
    main()
