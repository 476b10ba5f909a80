"""`python -m bench.instructions`: instructions a record on the five hottest paths, counted by callgrind.

Counts do not depend on what else the machine does, so a change of a few percent can be trusted. They are compared with
`bench/results/instructions.json`; a path that needs more than `--limit` percent more makes the command fail.
`--save` keeps the counts as the new baseline, and the functions that execute them in `bench/results/profile.json`,
which `python -m bench.compare` sets beside its figures. Needs valgrind with its headers, and a C compiler.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import penstock
from bench.callgrind import Dump, dumps
from bench.values import texts

RESULTS = Path(__file__).parent / "results"
BASELINE, PROFILE = RESULTS / "instructions.json", RESULTS / "profile.json"
FUNCTIONS = 6  # a path, in the profile
RECORDS = 20_000
APPENDS = 2000
BATCH = 1000
Path_ = tuple[Callable[[], object], Callable[[], int]]  # warms up; does it and says how many records


def main() -> None:
    """Count, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="keep the counts as the baseline")
    parser.add_argument("--limit", type=float, default=3.0, help="percent that a path may grow (default 3)")
    parser.add_argument("--under-callgrind", type=Path, metavar="LIBRARY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.under_callgrind:
        return run_paths(options.under_callgrind)
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed")
    counted, records = count()
    found = {dump.name: round(dump.total / records[dump.name], 1) for dump in counted}
    before = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    grown = compare(found, before, options.limit)
    if options.save:
        BASELINE.write_text(json.dumps(found, indent=2) + "\n")
        PROFILE.write_text(json.dumps(profile(counted, records), indent=1) + "\n")
    elif grown:
        raise SystemExit(f"more instructions than before: {', '.join(grown)}")
    return None


def compare(found: dict[str, float], before: dict[str, float], limit: float) -> list[str]:
    """Print a line a path; the paths that grew by more than `limit` percent."""
    grown = []
    for name, value in found.items():
        old = before.get(name)
        change = "" if old is None else f"{(value / old - 1) * 100:+.1f} %"
        print(f"{name:<46}{value:>10,.1f} instructions a record  {change}")
        if old is not None and value > old * (1 + limit / 100):
            grown.append(name)
    return grown


def profile(counted: list[Dump], records: dict[str, int]) -> dict[str, dict[str, object]]:
    """By path: instructions a record, and the functions with the largest shares of them."""
    return {
        dump.name: {
            "instructions": round(dump.total / records[dump.name], 1),
            "functions": {name: round(own / dump.total, 3) for name, own in dump.functions.most_common(FUNCTIONS)},
        }
        for dump in counted
    }


def count() -> tuple[list[Dump], dict[str, int]]:
    """What was counted of each path, and of how many records."""
    with tempfile.TemporaryDirectory() as work:
        library = Path(work) / "marks.so"
        source = Path(__file__).with_name("callgrind_marks.c")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        command = [
            *("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={work}/out"),
            *(sys.executable, "-m", "bench.instructions", "--under-callgrind", str(library)),
        ]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"valgrind failed: {done.stderr[-1000:]}")
        records = {name: int(number) for name, number in re.findall(r"^records (.+): (\d+)$", done.stdout, re.M)}
        return dumps(Path(work)), records


def run_paths(library: Path) -> None:
    """In the counted process."""
    marks = ctypes.CDLL(str(library))
    with tempfile.TemporaryDirectory() as work, penstock.open(work, fsync="never") as broker:
        for name, (warm, act) in paths(broker).items():
            warm()
            marks.counting_begins()
            records = act()
            marks.counting_ends(name.encode())
            print(f"records {name}: {records}", flush=True)


def paths(broker: penstock.Broker) -> dict[str, Path_]:
    """The five paths. Each is done once before it is counted."""
    values = texts(RECORDS)
    broker.create_topic("in")
    broker.create_topic("out")
    producer = broker.producer()
    topic = broker.topic("in")

    def send_many() -> int:
        producer.send_many("in", values)
        producer.flush()
        return RECORDS

    def append() -> int:
        for value in values[:APPENDS]:
            topic.append(value)
        return APPENDS

    producer.send_many("out", values)
    producer.flush()
    return {
        "send_many of a list, stored": (send_many, send_many),
        "append of one record": (append, append),
        **_reading(broker),
        **_queue(broker, values),
    }


def _reading(broker: penstock.Broker) -> dict[str, Path_]:
    consumer = broker.consumer("out")  # stays open: what a consumer costs is no matter of records
    # Gaps of a value's size: where the allocator's last pool is just full, every record would make and free one.
    gaps = [bytes(bytearray(100)) for _ in range(64)][::2]

    def values() -> int:
        consumer.seek_to_beginning()
        seen = 0
        while seen < RECORDS:
            for batch in consumer.poll_batches(timeout=1):
                seen += len(batch.values())
        return seen

    def iterate() -> int:
        consumer.seek_to_beginning()
        collections.deque(itertools.islice(consumer, RECORDS), maxlen=0)
        assert gaps  # they are still there
        return RECORDS

    return {"poll_batches and values()": (values, values), "iteration over Record objects": (iterate, iterate)}


def _queue(broker: penstock.Broker, values: list[bytes]) -> dict[str, Path_]:
    queue = broker.queue("queue", retention=None)

    def fill() -> None:
        queue.send_many(values)
        queue.send_many(values)
        take()

    def take() -> int:
        seen = 0
        while seen < RECORDS:
            messages = queue.receive(BATCH, wait=0)
            queue.ack_many(messages)
            seen += len(messages)
        return seen

    return {"receive and ack_many of a queue": (fill, take)}


if __name__ == "__main__":
    main()
