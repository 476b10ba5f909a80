"""Compaction of a log with one percent distinct keys, beside reading it; and the memory it takes."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import penstock
from bench.endurance import STATUS, private_mib
from bench.measure import Result

CHUNK = 50_000
MEMORY_LIMIT = 256  # MiB
LIMIT = 0.5
NEVER_MS = 86_400_000  # maintenance would compact what is being written


class _Peak:
    """Looks every 20 ms how much private memory there is; `grown`: MiB at most, beyond what there was before."""

    def __init__(self) -> None:
        self.grown = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> _Peak:
        self._before = private_mib() if STATUS.exists() else 0.0
        if STATUS.exists():
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        if STATUS.exists():
            self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.02):
            self.grown = max(self.grown, private_mib() - self._before)


class CompactionBench:
    """100-byte values with 8-byte keys, in segments of 256 MiB; `full`: 10 GB."""

    def __init__(self, directory: Path, count: int, full: bool) -> None:
        self.directory = directory
        self.count = 80_000_000 if full else count
        self.distinct = max(1, self.count // 100)

    def run(self) -> list[Result]:
        """Rates over the stored bytes, and growth of private memory."""
        with penstock.open(self.directory / "compaction", fsync="never", maintenance_interval_ms=NEVER_MS) as broker:
            broker.create_topic("t", cleanup_policy="compact", segment_bytes=256 << 20)
            with broker.producer() as producer:
                value = bytes(100)
                for start in range(0, self.count, CHUNK):
                    places = range(start, min(start + CHUNK, self.count))
                    keys = [b"%08d" % (n * 7919 % self.distinct) for n in places]
                    producer.send_many("t", [value] * len(keys), keys=keys)
            size = broker.topic("t").describe().partitions[0].size_bytes
            os.sync()
            read = min(self._read(broker) for _ in range(2))  # once it is in the page cache
            with _Peak() as peak:
                started = time.perf_counter()
                (done,) = broker.compact("t").values()
                taken = time.perf_counter() - started
            if done.records_kept != self.distinct:
                raise RuntimeError(f"{done.records_kept} records stayed of {self.distinct} keys")
        name = f"compaction of {size / 1e9:.2g} GB, 1 % distinct keys / reading it"
        rates = size / taken / 1e6, size / read / 1e6
        return [
            Result(name, *rates, "MB/s", rates[0] / rates[1], LIMIT),
            Result("its private memory", peak.grown, MEMORY_LIMIT, "MiB", peak.grown / MEMORY_LIMIT, 1, True),
        ]

    def _read(self, broker: penstock.Broker) -> float:
        seen, started = 0, time.perf_counter()
        with broker.consumer("t") as consumer:
            while seen < self.count:
                seen += sum(batch.count for batch in consumer.poll_batches())
        return time.perf_counter() - started
