"""Many processes on one store, and processes that die: no event is lost, doubled or out of order."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import events
from penstock.errors import ConcurrencyError
from penstock.events.store import index as store_index
from penstock.events.store import maintenance, run_file

context = multiprocessing.get_context("fork")


class Counted(events.Event, type="ProcessesCounted"):
    who: int
    number: int


@pytest.fixture(autouse=True)
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_index, "ROWS_PER_RUN", 60)
    monkeypatch.setattr(maintenance, "MERGED_RUNS", 3)


def count_up(path: Path, who: int, times: int) -> None:
    """Append to one stream at the version that was read, again and again."""
    with penstock.open(path, fsync="never") as broker:
        store = events.EventStore(broker, "shop")
        for number in range(times):
            while True:
                version = store.version("shared")
                try:
                    store.append("shared", Counted(who, number), events.NO_STREAM if version < 0 else version)
                    break
                except ConcurrencyError:
                    continue
            store.append(f"own-{who}", [Counted(who, number)] * 3, 3 * number - 1 if number else events.NO_STREAM)


def test_processes_that_append_to_one_stream(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with penstock.open(path, fsync="never"):
        workers = [context.Process(target=count_up, args=(path, who, 60)) for who in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(100)
            assert worker.exitcode == 0
    with penstock.open(path, fsync="never") as broker:
        store = events.EventStore(broker, "shop")
        shared = list(store.read("shared"))
        assert [event.version for event in shared] == list(range(240))
        for who in range(4):
            assert [e.data["number"] for e in shared if e.data["who"] == who] == list(range(60))
            assert [event.version for event in store.read(f"own-{who}")] == list(range(180))
        assert store.position == len(list(store.read_all())) == 240 + 4 * 180


def check(path: Path) -> dict[str, int]:
    """The index agrees with the log, versions are contiguous; the last version of each stream."""
    with penstock.open(path, fsync="never") as broker:
        store = events.EventStore(broker, "shop")
        seen: dict[str, list[tuple[int, int]]] = {}
        for event in store.read_all():
            seen.setdefault(event.stream, []).append((event.version, event.position))
        for stream, rows in seen.items():
            assert [version for version, _ in rows] == list(range(len(rows)))
            assert [(event.version, event.position) for event in store.read(stream)] == rows
            assert store.version(stream) == len(rows) - 1
        return {stream: len(rows) - 1 for stream, rows in seen.items()}


def in_child(action: Callable[[], Any]) -> int:
    """Run it in a fork; the exit code, or minus the signal."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            os._exit(99)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def append_for_ever(path: Path, told: int) -> None:
    with penstock.open(path, fsync="never") as broker:
        store = events.EventStore(broker, "shop")
        first = store.version("main")
        for number in range(first + 1, first + 100_000):
            store.append_many(
                {"main": ([Counted(0, number)], events.ANY), f"s-{number}": ([Counted(1, 1)], events.ANY)}
            )
            os.write(told, b"%d\n" % number)


def kill_while_appending(path: Path, rounds: int, seed: int) -> None:
    chosen = random.Random(seed)
    for _ in range(rounds):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            append_for_ever(path, writer)
            os._exit(0)
        os.close(writer)
        wanted = chosen.randrange(20, 400)
        with os.fdopen(reader, "rb") as told:
            for _ in range(wanted):
                told.readline()
            time.sleep(chosen.random() * 0.002)
            os.kill(child, signal.SIGKILL)
            rest = told.read().split()
        os.waitpid(child, 0)
        last = int(rest[-1]) if rest else -1
        known = check(path)
        assert known["main"] >= last
        assert set(known) == {"main", *(f"s-{number}" for number in range(known["main"] + 1))}


def test_kill_while_appending(tmp_path: Path) -> None:
    kill_while_appending(tmp_path / "data", 4, seed=1)


@pytest.mark.slow
def test_kill_while_appending_long(tmp_path: Path) -> None:
    for seed in range(10):  # each in a directory of its own: what is checked grows with it
        kill_while_appending(tmp_path / f"data-{seed}", 20, seed)


STEPS = ["fallocate", "fill", "header", "replace", "list"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", [0, 1, 4])
@pytest.mark.parametrize("after", [False, True])
def test_death_at_each_step_of_writing_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: int, after: bool
) -> None:
    """Old or new: a process dies before or after a step of writing or merging runs; the next one finds everything."""
    path = tmp_path / "data"
    owner, name = {
        "fallocate": (os, "posix_fallocate"),
        "fill": (run_file, "fill_run"),
        "header": (run_file.RunHeader, "to_bytes"),
        "replace": (os, "replace"),
        "list": (maintenance, "write_list"),
    }[step]
    if not hasattr(owner, name):
        pytest.skip(f"no {name} here")
    with penstock.open(path, fsync="never") as broker:
        store = events.EventStore(broker, "shop")
        store.append("main", Counted(0, 0))

    def action() -> None:
        real, left = getattr(owner, name), [when]

        def dying(*given: Any, **options: Any) -> Any:
            if left[0] == 0 and not after:
                os._exit(7)
            result = real(*given, **options)
            if left[0] == 0:
                os._exit(7)
            left[0] -= 1
            return result

        monkeypatch.setattr(owner, name, dying)
        with penstock.open(path, fsync="never") as broker:
            store = events.EventStore(broker, "shop")
            for number in range(1, 400):
                store.append("main", Counted(0, number), number - 1)
                if number % 40 == 0:
                    store._core.index.flush()

    assert in_child(action) == 7
    known = check(path)
    with penstock.open(path, fsync="never") as broker:
        store = events.EventStore(broker, "shop")
        store.append("main", Counted(0, 0), known["main"])
        store._core.index.flush()
    assert check(path)["main"] == known["main"] + 1


def test_a_fork_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with penstock.open(path, fsync="never") as broker:
        store = events.EventStore(broker, "shop")
        for number in range(300):
            store.append("main", Counted(0, number))

        def child() -> None:
            for number in range(100):
                store.append("main", Counted(1, number), 299 + number)

        assert in_child(child) == 0
        assert store.append("main", Counted(0, 0), 399).version == 400
    check(path)


def test_a_waiter_is_woken_by_another_process(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with penstock.open(path) as broker:
        store = events.EventStore(broker, "shop")

        def child() -> None:
            with penstock.open(path) as other:
                events.EventStore(other, "shop").append("main", Counted(0, 0))

        worker = context.Process(target=child)
        worker.start()
        assert store.wait(0, timeout=60)
        worker.join()
        assert store.version("main") == 0
