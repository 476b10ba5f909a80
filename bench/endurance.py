"""Long runs: private memory while gigabytes pass through with retention on, and the cost of a record as a log grows."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from pathlib import Path

import penstock
from bench.measure import Result
from bench.values import texts
from bench.writing import WIDTH

MIB = 1 << 20
CHUNK = 100_000
SEGMENT = 64 * MIB
PER_RECORD = 128  # bytes on disk, with room to spare
SPARE = 2 << 30  # bytes of disk left alone
MEMORY_LIMIT = 64  # MiB over the start
FLAT = 1.2  # cost of the last part of a log over the first
STATUS = Path("/proc/self/status")


def private_mib() -> float:
    """Anonymous resident memory of this process in MiB: what it holds beside the page cache (Linux)."""
    for line in STATUS.read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"{STATUS} has no RssAnon line")


class Endurance:
    """Sizes: 20 GB and 10^8 records when `full`, a smoke run otherwise. What the disk cannot hold is skipped, aloud."""

    def __init__(self, directory: Path, full: bool) -> None:
        self.directory = directory
        self.passing = 20 * 10**9 if full else 10 * CHUNK * WIDTH
        self.records = 10**8 if full else 10 * CHUNK
        self.values = texts(CHUNK)

    def run(self) -> list[Result]:
        """Growth in MiB, and seconds a record late in the log over early in it."""
        results = []
        if not STATUS.exists():
            print("memory: skipped, this system has no /proc/self/status")
        elif self._fits("memory", self.passing):
            results.append(self._memory())
        if self._fits("flatness", self.records * PER_RECORD):
            results += self._flatness()
        return results

    def _fits(self, name: str, need: int) -> bool:
        """Retention runs from time to time, so the whole of what passes through has to fit."""
        free = shutil.disk_usage(self.directory).free
        if free >= need + SPARE:
            return True
        print(f"{name}: skipped, needs {(need + SPARE) / 1e9:.1f} GB free in {self.directory}, found {free / 1e9:.1f}")
        return False

    def _memory(self) -> Result:
        path = self.directory / "memory"
        kept = self.passing // 40
        with penstock.open(path, fsync="never") as broker:
            broker.create_topic("t", segment_bytes=min(SEGMENT, kept), retention_bytes=kept)
            with broker.producer() as producer:
                producer.send_many("t", self.values)
                producer.flush()
                start = most = private_mib()
                for _ in range(self.passing // (CHUNK * WIDTH)):
                    producer.send_many("t", self.values)
                    producer.flush()
                    most = max(most, private_mib())
            with broker.consumer("t") as consumer:
                records = consumer.poll(max_records=1, timeout=0)
            if not records or records[0].offset == 0:
                raise RuntimeError("retention removed nothing: this run says nothing about memory")
        shutil.rmtree(path)
        grown = most - start
        name = f"private memory while {self.passing / 1e9:g} GB pass, over the start"
        return Result(name, grown, MEMORY_LIMIT, "MiB", grown / MEMORY_LIMIT, 1, True)

    def _flatness(self) -> list[Result]:
        """In elapsed time, where the disk has its say once it cannot keep up, and in the program's own time."""
        path = self.directory / "flatness"
        taken, own = [], []
        with penstock.open(path, fsync="never") as broker:
            broker.create_topic("t", segment_bytes=4 * SEGMENT)
            with broker.producer() as producer:
                for _ in range(self.records // CHUNK):
                    started, user = time.perf_counter(), os.times().user
                    producer.send_many("t", self.values)
                    producer.flush()
                    taken.append((time.perf_counter() - started) / CHUNK * 1e9)
                    own.append((os.times().user - user) / CHUNK * 1e9)
        shutil.rmtree(path)
        tenth = max(1, len(taken) // 10)
        name = f"cost of a record, last tenth of {self.records:,} / first tenth"
        first, last = statistics.median(taken[:tenth]), statistics.median(taken[-tenth:])
        # user time comes in ticks of 10 ms: means, not medians
        first_own, last_own = (max(statistics.mean(part), 1e-9) for part in (own[:tenth], own[-tenth:]))
        return [
            Result(name, last, first, "ns", last / first, FLAT, True),
            Result(f"{name}, user time", last_own, first_own, "ns", last_own / first_own, FLAT, True),
        ]
