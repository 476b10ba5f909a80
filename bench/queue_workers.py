"""Worker processes on one queue: what four of them reach beside one, and beside what bare loops reach on this machine.

Each round loads a queue anew, starts the workers, lets each receive and acknowledge elsewhere first, then all begin at
one signal; only receiving and acknowledging is timed. Rounds of one, of four and of bare loops take turns. The time of
the processors is measured as well: what a message costs with four, over what it costs with one, does not depend on
what else the machine does.
"""

from __future__ import annotations

import multiprocessing
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import penstock
from bench.measure import Result

BATCH = 100
WARM = 4_000
LOOPS = 10_000_000


@dataclass(frozen=True, slots=True)
class Run:
    """What processes did together: items, seconds from the first beginning to the last end, and of the processors."""

    items: int
    seconds: float
    processor_s: float

    @property
    def rate(self) -> float:
        """Items a second."""
        return self.items / self.seconds

    @property
    def cost_ns(self) -> float:
        """Processor time of an item."""
        return self.processor_s / self.items * 1e9


def timed(action: Callable[[], int], begin: Any, out: Connection) -> None:
    """Wait until all are there, act, and tell how much was done, from when to when."""
    begin.wait()
    started, used = time.monotonic(), time.process_time()
    count = action()
    out.send((count, started, time.monotonic(), time.process_time() - used))


def drain(path: str, begin: Any, out: Connection) -> None:
    """In another process: receive and acknowledge until the queue is empty; what is acknowledged counts."""
    with penstock.open(path, fsync="never") as broker:
        work, warm = broker.queue("work"), broker.queue("warm")
        warm.send_many([b"warm" * 25] * WARM)
        emptied(warm)
        timed(lambda: emptied(work), begin, out)


def emptied(queue: penstock.Queue) -> int:
    """Messages acknowledged here until there was none left."""
    done = 0
    while messages := queue.receive(BATCH, wait=0):
        done += len(messages) - len(queue.ack_many(messages))
    return done


def loop(path: str, begin: Any, out: Connection) -> None:
    """In another process: Python that touches nothing shared."""
    timed(looped, begin, out)


def looped() -> int:
    """Count in Python."""
    number = 0
    for number in range(LOOPS):  # noqa: B007
        pass
    return number + 1


class QueueWorkers:
    """One queue, drained by one process or by several."""

    def __init__(self, directory: Path, values: list[bytes], total: int, rounds: int) -> None:
        self.directory, self.values, self.total, self.rounds = directory, values, total, rounds

    def run(self) -> list[Result]:
        """The bar, what it costs, and what the machine has to give."""
        ones, fours, single, double = [], [], [], []
        for _ in range(self.rounds):
            ones.append(self.drained_by(1))
            fours.append(self.drained_by(4))
            single.append(together(loop, "", 1))
            double.append(together(loop, "", 2))
        ratio = statistics.median(four.rate / one.rate for one, four in zip(ones, fours, strict=True))
        machine = statistics.median(two.rate / one.rate for one, two in zip(single, double, strict=True))
        cost, alone = (statistics.median(run.cost_ns for run in runs) for runs in (fours, ones))
        rate = statistics.median(four.rate for four in fours)
        name = "4 worker processes on one queue / 1"
        return [
            Result(name, rate, statistics.median(one.rate for one in ones), "messages/s", ratio, 1.5),
            Result(f"{name}, processor time of a message", cost, alone, "ns", cost / alone, 1.33, True),
            Result(
                "for comparison: bare Python loops in 2 processes / 1",
                statistics.median(run.rate for run in double),
                statistics.median(run.rate for run in single),
                "turns/s",
                machine,
                1.5,
            ),
        ]

    def drained_by(self, processes: int) -> Run:
        """A queue of its own, loaded before; every message is acknowledged once, and none is left."""
        path = self.directory / f"drain{processes}-{time.monotonic_ns()}"
        with penstock.open(path, fsync="never") as broker:
            queue = broker.queue("work", retention=None)
            broker.queue("warm", retention=None)
            for sent in range(0, self.total, len(self.values)):
                queue.send_many(self.values[: self.total - sent])
            run = together(drain, str(path), processes)
            left = queue.stats()
            assert run.items == self.total and left.ready == left.in_flight == 0, (run, left)
        shutil.rmtree(path)
        return run


def together(target: Callable[[str, Any, Connection], None], path: str, processes: int) -> Run:
    """Let processes begin at one signal."""
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(processes + 1)
    started = []
    for _ in range(processes):
        told, tell = context.Pipe()
        worker = context.Process(target=target, args=(path, begin, tell), daemon=True)
        worker.start()
        started.append((worker, told))
    begin.wait()
    found = [told.recv() for _, told in started]
    for worker, _ in started:
        worker.join()
    seconds = max(end for _, _, end, _ in found) - min(first for _, first, _, _ in found)
    return Run(sum(count for count, *_ in found), seconds, sum(used for *_, used in found))
