"""`python -m bench.sagas`: sagas of five steps a second, every step journaled before the next one begins."""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import penstock
from bench.environment import environment
from penstock import events

STEPS = 5


def effect(number: int, order: dict[str, int]) -> dict[str, int]:
    """What a step does: next to nothing, so that the sagas are what is measured."""
    return {"step": number, "order": order["id"]}


def undo(number: int, order: dict[str, int]) -> None:
    """Never called here."""


def defined(broker: penstock.Broker) -> events.Sagas:
    """The sagas of a broker, with the one that is measured."""
    sagas = events.Sagas(broker)

    @sagas.define("five-steps")
    def five_steps(saga: events.Saga, order: dict[str, int]) -> int:
        for number in range(STEPS):
            saga.step(effect, number, order, compensate=undo)
        return order["id"]

    return sagas


def start_all(sagas: events.Sagas, count: int) -> list[events.SagaHandle]:
    """Start so many."""
    return [sagas.start("five-steps", {"id": n, "cents": 4200}, saga_id=f"order-{n}") for n in range(count)]


def alone(directory: Path, count: int, workers: int) -> tuple[float, float, float]:
    """Sagas a second of one process: starting, running, and both with all results awaited."""
    with penstock.open(directory) as broker, defined(broker) as sagas:
        began = time.perf_counter()
        handles = start_all(sagas, count)
        started = time.perf_counter()
        sagas.start_background(workers)
        results = [handle.result(timeout=120) for handle in handles]
        ended = time.perf_counter()
        assert results == list(range(count))
    return count / (started - began), count / (ended - started), count / (ended - began)


def _serve(path: str) -> None:
    with penstock.open(path) as broker, defined(broker) as sagas:
        sagas.run(workers=4)


def together(directory: Path, count: int, processes: int) -> float:
    """Sagas a second of several processes, all started before."""
    with penstock.open(directory) as broker, defined(broker) as sagas:
        handles = start_all(sagas, count)
        context = multiprocessing.get_context("spawn")
        servers = [context.Process(target=_serve, args=(str(directory),)) for _ in range(processes)]
        for server in servers:
            server.start()
        handles[0].result(timeout=60)
        began = time.perf_counter()
        done = sum(sagas.count().values()) - count + sagas.count().get("completed", 0)
        assert [handle.result(timeout=120) for handle in handles] == list(range(count))
        rate = (count - done) / (time.perf_counter() - began)
        for server in servers:
            server.terminate()
        for server in servers:
            server.join()
    return rate


def opening(directory: Path, count: int) -> float:
    """Milliseconds to take over all partitions after `count` sagas have finished."""
    with penstock.open(directory) as broker, defined(broker) as sagas:
        began = time.perf_counter()
        sagas.run_until_idle()
        return (time.perf_counter() - began) * 1000


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sagas", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--data", type=Path, default=Path("penstock-bench"))
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(dir=options.data))
    try:
        for name, value in environment(root).items():
            print(f"{name}: {value}")
        rounds = [alone(root / f"alone-{n}", options.sagas, options.workers) for n in range(options.rounds)]
        started, run, whole = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"\n{options.sagas:,} sagas of {STEPS} steps, medians of {options.rounds} rounds, one process")
        print(f"start: {started:,.0f} sagas/s\nrun, results awaited: {run:,.0f} sagas/s\nboth: {whole:,.0f} sagas/s")
        print(f"take over after them: {opening(root / 'alone-0', options.sagas):,.0f} ms")
        print(f"two processes: {together(root / 'two', options.sagas, 2):,.0f} sagas/s")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
