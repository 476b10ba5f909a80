"""Time, not rate: waking a reader in another process, and fsync shared by threads."""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import penstock
from bench.measure import Result

PER_SECOND = 10_000


def read_latencies(path: str, count: int, out: Connection) -> None:
    """In the other process: block for each record, note how long ago it was written."""
    waits = []
    with penstock.open(path, fsync="never") as broker, broker.consumer("t", auto_offset_reset="latest") as consumer:
        consumer.poll(timeout=0)
        out.send("ready")
        for record in consumer:
            assert record.value is not None
            waits.append(time.monotonic_ns() - int(record.value))
            if len(waits) == count:
                break
    out.send(waits)


class Latency:
    """Wake-up latency and group commit."""

    def __init__(self, directory: Path, rounds: int, quick: bool) -> None:
        self.directory, self.rounds = directory, rounds
        self.count = 500 if quick else 20_000
        self.syncs = 10 if quick else 200

    def run(self) -> list[Result]:
        """p50 and p99 in microseconds (the aim stands where the peer does), and 8 threads against one."""
        waits = self._wake_ups()
        p50 = statistics.quantiles(waits, n=100)[49] / 1000
        p99 = statistics.quantiles(waits, n=100)[98] / 1000
        singles, eights = [], []
        for number in range(self.rounds):
            singles.append(self._synced(f"one-{number}", 1))
            eights.append(self._synced(f"eight-{number}", 8))
        eight, one = statistics.median(eights), statistics.median(singles)
        return [
            Result(f"wake-up in another process at {PER_SECOND:,}/s, p50", p50, 20, "us", p50 / 20, 1, True),
            Result(f"wake-up in another process at {PER_SECOND:,}/s, p99", p99, 200, "us", p99 / 200, 1, True),
            Result('fsync="always": 8 threads / 1 thread', eight, one, "appends/s", eight / one, 4),
        ]

    def _wake_ups(self) -> list[int]:
        path = self.directory / "latency"
        with penstock.open(path, fsync="never") as broker:
            append = broker.create_topic("t").append
            context = multiprocessing.get_context("spawn")
            here, there = context.Pipe()
            process = context.Process(target=read_latencies, args=(str(path), self.count, there))
            process.start()
            here.recv()
            due = time.monotonic_ns()
            for _ in range(self.count):
                due += 1_000_000_000 // PER_SECOND
                while time.monotonic_ns() < due:
                    pass
                append(b"%d" % due)
            waits: list[int] = here.recv()
            process.join()
        return waits

    def _synced(self, name: str, threads: int) -> float:
        with penstock.open(self.directory / name, fsync="always") as broker:
            topic = broker.create_topic("t")
            topic.append(b"first")

            def work() -> None:
                for _ in range(self.syncs):
                    topic.append(b"v" * 100)

            workers = [threading.Thread(target=work) for _ in range(threads)]
            started = time.perf_counter()
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            return threads * self.syncs / (time.perf_counter() - started)
