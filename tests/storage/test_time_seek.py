"""Finding the first record at or after a time, against looking at every record."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import penstock


def first_at(stamps: list[int], wanted: int) -> tuple[int, int] | None:
    """The plain answer."""
    return next(((offset, stamp) for offset, stamp in enumerate(stamps) if stamp >= wanted), None)


def stamps_of(kind: str, rng: random.Random, count: int) -> list[int]:
    """Timestamps that ascend one by one, come in long runs, or in any order."""
    if kind == "ascending":
        return [1000 + 3 * n for n in range(count)]
    if kind == "runs":
        return [1000 + n // 700 for n in range(count)]
    if kind == "late":  # mostly ascending, some much too late, some too early
        return [max(0, 1000 + n + rng.choice([0, 0, 0, 500, -900])) for n in range(count)]
    return [rng.randrange(1000, 3000) for _ in range(count)]


@pytest.mark.parametrize("kind", ["ascending", "runs", "late", "random"])
@pytest.mark.parametrize("index", ["as written", "rebuilt"])
def test_every_time_is_found(tmp_path: Path, kind: str, index: str) -> None:
    rng = random.Random(f"{kind} {index}")
    stamps = stamps_of(kind, rng, 4000)
    path = tmp_path / "data"
    with penstock.open(path) as broker:
        topic = broker.create_topic("t")
        with broker.producer(batch_size=2048) as producer:
            for n, stamp in enumerate(stamps):
                producer.send("t", b"%0200d" % n, timestamp_ms=stamp)
                if n in (1200, 1300, 2500):
                    producer.flush()
                    topic.log(0).roll_active()
    if index == "rebuilt":
        for file in [*path.glob("t-0/*.index"), *path.glob("t-0/*.timeindex"), *path.glob("t-0/*control")]:
            file.unlink()
    with penstock.open(path) as broker:
        log = broker.topic("t").log(0)
        for wanted in sorted({0, *stamps, *(stamp + 1 for stamp in stamps), 10**6}):
            assert log.offset_for_timestamp(wanted) == first_at(stamps, wanted)


def test_the_segment_that_is_written(tmp_path: Path) -> None:
    stamps = [1000 + n // 900 for n in range(4000)]
    with penstock.open(tmp_path / "data") as broker:
        topic = broker.create_topic("t")
        for n, stamp in enumerate(stamps):
            topic.append(b"%0100d" % n, timestamp_ms=stamp)
        log = topic.log(0)
        for wanted in range(999, 1006):
            assert log.offset_for_timestamp(wanted) == first_at(stamps, wanted)
