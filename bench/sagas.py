"""Sagas of five steps a second, every step journaled before the next one begins; run by `bench.events`."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from pathlib import Path

import penstock
from bench.measure import Result
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
        done = sagas.count().get("completed", 0)
        assert [handle.result(timeout=120) for handle in handles] == list(range(count))
        rate = (count - done) / (time.perf_counter() - began)
        for server in servers:
            server.terminate()
        for server in servers:
            server.join()
    return rate


def opening(directory: Path) -> float:
    """Milliseconds to take over all partitions after many sagas have finished."""
    with penstock.open(directory) as broker, defined(broker) as sagas:
        began = time.perf_counter()
        sagas.run_until_idle()
        return (time.perf_counter() - began) * 1000


def run(directory: Path, count: int, rounds: int, workers: int = 4) -> list[Result]:
    """Medians."""
    measured = [alone(directory / f"alone-{number}", count, workers) for number in range(rounds)]
    started, ran, both = (statistics.median(column) for column in zip(*measured, strict=True))
    taken_over = opening(directory / "alone-0")
    shared = together(directory / "two", count, 2)
    return [
        Result("saga of 5 steps, durable: started, run, awaited, one process", both, 5000, "1/s", both / 5000, 1),
        Result("the same, run and awaited", ran, 5000, "1/s", ran / 5000, 1),
        Result("starting a saga", started, 50_000, "1/s", started / 50_000, 1),
        Result("sagas run by two processes", shared, 5000, "1/s", shared / 5000, 1),
        Result(f"take over after {count:,} sagas", taken_over, 2000, "ms", taken_over / 2000, 1, True),
    ]
