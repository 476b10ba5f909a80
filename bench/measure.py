"""Two sides, turn and turn about: medians and their ratio, so that a noisy machine hurts both alike."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table. `ratio` is ours over the peer's; `limit` what is aimed at."""

    name: str
    ours: float
    peer: float
    unit: str
    ratio: float
    limit: float
    at_most: bool = False

    @property
    def reached(self) -> bool:
        """Whether the aim was reached."""
        return self.ratio <= self.limit if self.at_most else self.ratio >= self.limit

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "reached": self.reached}


Side = Callable[[], AbstractContextManager[Callable[[], int]]]


def rate(side: Side) -> float:
    """Items a second of the action that `side` sets up; the action returns how many items it handled."""
    os.sync()
    gc.collect()
    with side() as action:
        started = time.perf_counter()
        count = action()
        return count / (time.perf_counter() - started)


def versus(name: str, ours: Side, peer: Side, limit: float, rounds: int, unit: str = "records/s") -> Result:
    """Rates of both, interleaved, after one round that does not count."""
    mine, others = [], []
    for number in range(rounds + 1):
        pair = rate(ours), rate(peer)
        if number:
            mine.append(pair[0])
            others.append(pair[1])
    first, second = statistics.median(mine), statistics.median(others)
    return Result(name, first, second, unit, first / second, limit)


def table(results: list[Result]) -> str:
    """Markdown."""
    lines = ["| what | Penstock | peer | unit | measured | aim | |", "|---|---:|---:|---|---:|---:|---|"]
    for result in results:
        sign = "<=" if result.at_most else ">="
        verdict = "reached" if result.reached else "short"
        lines.append(
            f"| {result.name} | {result.ours:,.4g} | {result.peer:,.4g} | {result.unit} "
            f"| {result.ratio:.3g} | {sign} {result.limit:g} | {verdict} |"
        )
    return "\n".join(lines)
