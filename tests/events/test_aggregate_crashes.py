"""Killed at any moment: snapshots never differ from the events, and what was forgotten stays so."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from children import Child

import penstock
from penstock import events


class Added(events.Event, type="test.crash.Added", subject="who", personal=("name",)):
    who: str
    name: str
    count: int


class Tally(events.Aggregate, snapshot_every=3):
    total: int = 0
    names: list[str] = []  # noqa: RUF012

    @events.applies(Added)
    def _(self, event: Added) -> None:
        self.total += event.count
        self.names.append(event.name)


CHILD = """
import sys, penstock
sys.path.insert(0, sys.argv[2])
from test_aggregate_crashes import Added, Tally
from penstock import events
with penstock.open(sys.argv[1], fsync="never") as broker:
    store = events.EventStore(broker, "shop")
    number = 0
    print("ready", flush=True)
    while True:
        number += 1
        for stream in ("t-1", "t-2"):
            tally = store.load(Tally, stream)
            for _ in range(number % 5):
                tally.record(Added(f"s{number % 7}", f"Name{number}", number))
            store.save(tally)
        if number % 4 == 0:
            store.forget(f"s{number % 7}")
            print(f"s{number % 7} {store.position}", flush=True)
"""


def run_and_kill(directory: Path, after_s: float) -> list[tuple[str, int]]:
    """(subject, position up to which it is forgotten) of every `forget` that returned."""
    with Child(CHILD, directory, Path(__file__).parent, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        time.sleep(after_s)
        child.send_signal(signal.SIGKILL)
        lines = child.stdout.read().splitlines(keepends=True)
    pairs = [line.split() for line in lines if line.endswith("\n")]
    return [(subject, int(position)) for subject, position in pairs]


def check(directory: Path, forgotten: dict[str, int]) -> None:
    with penstock.open(directory, fsync="never") as broker:
        store = events.EventStore(broker, "shop")
        for stream in ("t-1", "t-2"):
            fast, slow = store.load(Tally, stream), store.load(Tally, stream, snapshots=False)
            assert (vars(fast), fast.version) == (vars(slow), slow.version)
            for recorded in store.read(stream):
                event = recorded.event
                assert isinstance(event, Added)
                if recorded.position <= forgotten.get(event.who, 0):
                    assert event.name == "[forgotten]"
                else:
                    assert event.name in ("[forgotten]", f"Name{event.count}")
    raw = b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())
    assert b"Name1" not in raw


def kill_often(directory: Path, times: int) -> None:
    forgotten: dict[str, int] = {}
    for number in range(times):
        forgotten.update(run_and_kill(directory, 0.05 + 0.037 * (number % 7)))
        check(directory, forgotten)


def test_killed(tmp_path: Path) -> None:
    kill_often(tmp_path / "data", 2)


@pytest.mark.slow
def test_killed_often(tmp_path: Path) -> None:
    kill_often(tmp_path / "data", 30)
