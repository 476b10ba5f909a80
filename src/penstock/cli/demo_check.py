"""Comparing the fingerprints of the input with those of what was stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

Marks = npt.NDArray[np.uint64]


@dataclass
class Verdict:
    """The outcome: `partitions` are (number, records, checksum of the set); `problems` is empty when all agrees."""

    partitions: list[tuple[int, int, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    batches: int = 0

    @property
    def ok(self) -> bool:
        """Whether everything agrees."""
        return not self.problems


def compare(directory: Path, partitions: int) -> Verdict:
    """Compare `expected-<partition>-*` with `stored-<partition>` files, as multisets.

    Records without a key (partition -1) may be in any partition, so then all partitions are compared at once.
    """
    verdict = Verdict()
    stored = [_load(directory, f"stored-{number}") for number in range(partitions)]
    expected = [_load(directory, f"expected-{number}-*") for number in range(partitions)]
    anywhere = _load(directory, "expected--1-*")
    for number, marks in enumerate(stored):
        checksum = int(marks.sum(dtype=np.uint64))  # modulo 2**64: does not depend on the order
        verdict.partitions.append((number, len(marks), f"{checksum:016x}"))
        if not len(anywhere):
            _compare_sets(f"partition {number}", expected[number], marks, verdict)
    if len(anywhere):
        _compare_sets("topic", np.concatenate([*expected, anywhere]), np.concatenate(stored), verdict)
    return verdict


def _load(directory: Path, pattern: str) -> Marks:
    files = sorted(directory.glob(pattern))
    return np.concatenate([np.zeros(0, np.uint64), *(np.fromfile(file, np.uint64) for file in files)])


def _compare_sets(name: str, expected: Marks, stored: Marks, verdict: Verdict) -> None:
    if np.array_equal(np.sort(expected), np.sort(stored)):
        return
    missing = len(np.setdiff1d(expected, stored))
    invented = len(np.setdiff1d(stored, expected))
    difference = f"{missing:,} missing, {invented:,} not in the input"
    verdict.problems.append(f"{name}: {len(expected):,} records expected, {len(stored):,} stored; {difference}")
