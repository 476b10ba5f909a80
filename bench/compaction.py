"""Compaction of a log with one percent distinct keys, beside reading it; and the memory it takes."""

from __future__ import annotations

import time
from pathlib import Path

import penstock
from bench.endurance import STATUS, private_mib
from bench.measure import Result

CHUNK = 50_000
MEMORY_LIMIT = 256  # MiB
LIMIT = 0.5


class CompactionBench:
    """100-byte values with 8-byte keys, in segments of 256 MiB; `full`: 10 GB."""

    def __init__(self, directory: Path, count: int, full: bool) -> None:
        self.directory = directory
        self.count = 80_000_000 if full else count
        self.distinct = max(1, self.count // 100)

    def run(self) -> list[Result]:
        """Rates over the stored bytes, and growth of private memory."""
        with penstock.open(self.directory / "compaction", fsync="never") as broker:
            broker.create_topic("t", cleanup_policy="compact", segment_bytes=256 << 20)
            with broker.producer() as producer:
                value = bytes(100)
                for start in range(0, self.count, CHUNK):
                    places = range(start, min(start + CHUNK, self.count))
                    keys = [b"%08d" % (n * 7919 % self.distinct) for n in places]
                    producer.send_many("t", [value] * len(keys), keys=keys)
            size = broker.topic("t").describe().partitions[0].size_bytes
            read = self._read(broker)
            before = private_mib() if STATUS.exists() else 0.0
            started = time.perf_counter()
            (done,) = broker.compact("t").values()
            taken = time.perf_counter() - started
            grown = private_mib() - before if STATUS.exists() else 0.0
            if done.records_kept != self.distinct:
                raise RuntimeError(f"{done.records_kept} records stayed of {self.distinct} keys")
        name = f"compaction of {size / 1e9:.2g} GB, 1 % distinct keys / reading it"
        rates = size / taken / 1e6, size / read / 1e6
        return [
            Result(name, *rates, "MB/s", rates[0] / rates[1], LIMIT),
            Result("its private memory", grown, MEMORY_LIMIT, "MiB", grown / MEMORY_LIMIT, 1, True),
        ]

    def _read(self, broker: penstock.Broker) -> float:
        seen, started = 0, time.perf_counter()
        with broker.consumer("t") as consumer:
            while seen < self.count:
                seen += sum(batch.count for batch in consumer.poll_batches())
        return time.perf_counter() - started
