"""Opening directories with many partitions and many segments, and finding a place in a long log."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import penstock
from bench.measure import Result


def _median_ms(action: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


class Opening:
    """Directories are made once, then opened `rounds` times."""

    def __init__(self, directory: Path, rounds: int, quick: bool, full: bool) -> None:
        self.directory, self.rounds = directory, max(rounds, 3)
        self.partitions, self.segments = (20, 20) if quick else (1000, 1000)
        self.small, self.large = (10_000, 50_000) if quick else (100_000, 10**8 if full else 10**7)

    def run(self) -> list[Result]:
        """Milliseconds against the aim; microseconds of a seek in a long log against a short one."""
        wide, deep = self._make_wide(), self._make_deep()
        opened = _median_ms(lambda: self._touch(wide), self.rounds)
        single = _median_ms(lambda: self._touch(deep), self.rounds)
        results = [
            Result(
                f"opening {self.partitions:,} partitions x 3 segments, each read",
                opened,
                300,
                "ms",
                opened / 300,
                1,
                True,
            ),
            Result(f"opening 1 partition x {self.segments:,} segments, read", single, 50, "ms", single / 50, 1, True),
        ]
        short, long = self._seeks(self.small), self._seeks(self.large)
        for kind in ("offset", "timestamp"):
            mine = long[kind]
            name = f"seek by {kind} among {self.large:,} records"
            results.append(Result(name, mine, 20, "us", mine / 20, 1, True))
            results.append(Result(f"{name} / {self.small:,}", mine, short[kind], "us", mine / short[kind], 2, True))
        return results

    def _touch(self, path: Path) -> None:
        with penstock.open(path, fsync="never") as broker:
            topic = broker.topic("t")
            for number in range(topic.partitions):
                topic.log(number).fetch(0, 1)

    def _make_wide(self) -> Path:
        path = self.directory / "wide"
        with penstock.open(path, fsync="never") as broker:
            topic = broker.create_topic("t", partitions=self.partitions)
            for number in range(self.partitions):
                for _ in range(3):
                    topic.append(b"v" * 100, partition=number)
                    topic.log(number).roll_active()
        return path

    def _make_deep(self) -> Path:
        path = self.directory / "deep"
        with penstock.open(path, fsync="never") as broker:
            topic = broker.create_topic("t")
            for _ in range(self.segments):
                topic.append(b"v" * 100)
                topic.log(0).roll_active()
        return path

    def _seeks(self, records: int) -> dict[str, float]:
        path = self.directory / f"seek-{records}"
        chunk = [b"%0100d" % n for n in range(10_000)]
        with penstock.open(path, fsync="never") as broker:
            broker.create_topic("t", segment_bytes=256 << 20)
            with broker.producer() as producer:
                for number in range(records // len(chunk)):
                    producer.send_many("t", chunk, timestamp_ms=1_000_000 + number)
                    producer.flush()
            log = broker.topic("t").log(0)
            places = [n * 7919 % records for n in range(500)]
            for place in places:
                log.fetch(place, 1)
                log.offset_for_timestamp(1_000_000 + place // len(chunk))
            offset, stamp = [], []
            for place in places:
                started = time.perf_counter_ns()
                log.fetch(place, 1)
                middle = time.perf_counter_ns()
                log.offset_for_timestamp(1_000_000 + place // len(chunk))
                stamp.append((time.perf_counter_ns() - middle) / 1000)
                offset.append((middle - started) / 1000)
        return {"offset": statistics.median(offset), "timestamp": statistics.median(stamp)}
