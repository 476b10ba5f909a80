"""Processes that run sagas die at every point, and are killed at any moment: effects once, nothing lost or stuck."""

from __future__ import annotations

import importlib.util
import random
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
from children import Child, run

import penstock
from penstock import events

CHILD = Path(__file__).parent / "saga_child.py"
_spec = importlib.util.spec_from_file_location("saga_child", CHILD)
assert _spec is not None and _spec.loader is not None
child = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(child)
# a death before and behind each effect and each entry of the journal
POINTS_OK = 4 * child.STEPS + 4
POINTS_FAILS = 4 * (child.STEPS - 1) + 1 + 4 + 4 * (child.STEPS - 1) + 2


def rows(database: Path, query: str) -> list[tuple]:
    connection = sqlite3.connect(database, timeout=60)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def expected_keys(ok: list[str], failed: list[str]) -> list[str]:
    steps = [f"{saga_id}:{n}" for saga_id in ok for n in range(child.STEPS)]
    undone = [f"{saga_id}:{n}" for saga_id in failed for n in range(child.STEPS - 1)]
    return sorted([*steps, *undone, *(f"{key}:compensate" for key in undone)])


@pytest.mark.parametrize(("definition", "points"), [("ok", POINTS_OK), ("fails", POINTS_FAILS)], ids=["ok", "fails"])
def test_death_at_every_point(tmp_path: Path, definition: str, points: int) -> None:
    """A saga for each point: its process dies there; another one goes on."""
    chosen = range(1, points + 1)
    for point in chosen:
        if point % 4 != points % 4 and point > 4:  # a quarter of them; the slow run takes all
            continue
        die_at(tmp_path / str(point), definition, point)


@pytest.mark.slow
@pytest.mark.parametrize(("definition", "points"), [("ok", POINTS_OK), ("fails", POINTS_FAILS)], ids=["ok", "fails"])
def test_death_at_really_every_point(tmp_path: Path, definition: str, points: int) -> None:
    for point in range(1, points + 1):
        die_at(tmp_path / str(point), definition, point)


def die_at(directory: Path, definition: str, point: int) -> None:
    directory.mkdir()
    path, database = directory / "data", directory / "effects.sqlite3"
    with penstock.open(path) as broker, events.Sagas(broker, partitions=4) as sagas:
        child.define(sagas, str(database), lambda: None)
        handle = sagas.start(definition, point, saga_id="s")
        sagas.signal("s", "go", point)
        done = run(CHILD, path, database, point)
        assert done.returncode == 77, f"point {point}: {done.stderr.decode()}"
        sagas.run_until_idle()
        if definition == "ok":
            assert handle.result(0) == [[f"step {n}" for n in range(child.STEPS)], point]
            keys = expected_keys(["s"], [])
        else:
            assert handle.status == "failed"
            keys = expected_keys([], ["s"])
    assert [key for (key,) in rows(database, "SELECT key FROM effects ORDER BY key")] == keys
    calls = [key for (key,) in rows(database, "SELECT key FROM calls")]
    assert len(calls) <= len(keys) + 1, "at most the step in hand was repeated"


def run_kills(directory: Path, kills: int, count: int, seed: int) -> None:
    generator = random.Random(seed)
    path, database = directory / "data", directory / "effects.sqlite3"
    with penstock.open(path) as broker, events.Sagas(broker, partitions=4) as sagas:
        child.define(sagas, str(database), lambda: None)
        handles = {}
        processes = [start(path, database) for _ in range(2)]
        try:
            for number in range(count):
                saga_id = f"s-{number}"
                handles[saga_id] = sagas.start("fails" if number % 3 == 0 else "ok", number, saga_id=saga_id)
                sagas.signal(saga_id, "go", number)
                if number % (count // kills) == count // kills - 1:
                    time.sleep(generator.random() / 10)
                    victim = generator.randrange(2)
                    processes[victim].send_signal(signal.SIGKILL)
                    processes[victim].wait()
                    processes[victim] = start(path, database)
            for number, (saga_id, handle) in enumerate(handles.items()):
                if number % 3:
                    assert handle.result(60) == [[f"step {n}" for n in range(child.STEPS)], number]
                else:
                    with pytest.raises(events.SagaFailedError, match="declined"):
                        handle.result(60)
                    assert sagas.inspect(saga_id).status == "failed"
        finally:
            for process in processes:
                process.terminate()
            assert [process.wait(30) for process in processes] == [0, 0], "SIGTERM is a graceful stop"
        assert sagas.count() == {"completed": count - len(range(0, count, 3)), "failed": len(range(0, count, 3))}
    ok = [f"s-{number}" for number in range(count) if number % 3]
    failed = [f"s-{number}" for number in range(0, count, 3)]
    assert [key for (key,) in rows(database, "SELECT key FROM effects ORDER BY key")] == expected_keys(ok, failed)


def start(path: Path, database: Path) -> Child:
    process = Child(CHILD, path, database, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdout.close()
    return process


def test_killed_processes_lose_and_repeat_nothing(tmp_path: Path) -> None:
    run_kills(tmp_path, 4, 200, 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_killed_processes_lose_and_repeat_nothing_for_long(tmp_path: Path, seed: int) -> None:
    run_kills(tmp_path, 20, 2000, seed)


def test_a_stopped_owner_that_comes_back_changes_nothing(tmp_path: Path) -> None:
    """Its partitions have moved; what it wanted to journal is refused."""
    path = tmp_path / "data"
    with penstock.open(path) as broker, events.Sagas(broker, partitions=1) as first:
        entered: list[str] = []

        @first.define("slow")
        def slow(saga):
            saga.step(lambda: entered.append("a"))
            saga.step(lambda: entered.append(take_over()))
            return saga.step(lambda: entered.append("b"))

        def take_over() -> str:
            # what another owner does first, while this one is in the middle of a step
            broker.producer(name="sagas/0").close()
            return "taken"

        handle = first.start("slow", saga_id="s")
        first.run_until_idle()
        assert entered == ["a", "taken"], "the fenced owner went no further"
        assert first.inspect("s").operations[-1].number == 0
        first.run_until_idle()
        assert entered[2] == "taken", "the step that was not journaled is repeated"
        assert handle.status == "running"
