"""A distribution in buckets of fixed relative width, as the engine counts it; see `metrics.h`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock._native.metrics import BUCKETS
from penstock.errors import InvalidArgumentError

Words = NDArray[np.int64]


def _lower_bounds() -> NDArray[np.float64]:
    """The least value of each bucket, and the end of the last."""
    bounds = [float(value) for value in range(8)]
    for number in range(8, BUCKETS + 1):
        bounds.append(float((8 + number % 8) << (number // 8 - 1)))
    return np.array(bounds)


_BOUNDS = _lower_bounds()


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How often which values were seen. Values are seconds, records or bytes, as the field that holds it says.

    A bucket is at most an eighth of its values wide; `percentile` interpolates inside it.
    """

    counts: Words
    """How many values fell into each bucket."""
    total: float
    """Sum of the values."""
    unit: float = 1.0
    """What one step of the counted values is: 1e-9 for nanoseconds, which are shown in seconds."""

    @classmethod
    def empty(cls, unit: float = 1.0) -> Histogram:
        """A histogram of nothing."""
        return cls(np.zeros(BUCKETS, np.int64), 0.0, unit)

    @property
    def count(self) -> int:
        """How many values there were."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """Their mean; 0 when there were none."""
        count = self.count
        return self.total / count if count else 0.0

    @property
    def maximum(self) -> float:
        """No value was larger; 0 when there were none."""
        used = np.flatnonzero(self.counts)
        if not len(used):
            return 0.0
        last = int(used[-1])
        return float(_BOUNDS[last + 1] - 1) * self.unit

    def percentile(self, percent: float) -> float:
        """The value below which `percent` (0 to 100) of the values lie; 0 when there were none.

        Raises `InvalidArgumentError`.
        """
        if not 0 <= percent <= 100:
            raise InvalidArgumentError(f"percent is {percent!r}; allowed is 0 to 100")
        count = self.count
        if not count:
            return 0.0
        rank = percent / 100 * (count - 1)
        seen = np.cumsum(self.counts)
        bucket = int(np.searchsorted(seen, rank, side="right"))
        before = float(seen[bucket - 1]) if bucket else 0.0
        width = _BOUNDS[bucket + 1] - _BOUNDS[bucket]
        inside = (rank - before + 0.5) / float(self.counts[bucket])
        value = _BOUNDS[bucket] + (width - 1) * min(inside, 1.0)
        return float(value) * self.unit

    def cumulative(self, bounds: list[float]) -> list[int]:
        """How many values are at most each of these (ascending) bounds; to within a bucket."""
        seen = np.concatenate(([0], np.cumsum(self.counts)))
        places = np.searchsorted(_BOUNDS, np.array(bounds) / self.unit * (1 + 1e-12), side="right") - 1
        exact = _BOUNDS[np.clip(places, 0, BUCKETS)] >= np.array(bounds) / self.unit  # the bucket begins there
        return [
            int(seen[min(place + (not whole or place < 8), BUCKETS)])
            for place, whole in zip(places, exact, strict=True)
        ]

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.counts + other.counts, self.total + other.total, self.unit)

    def since(self, previous: Histogram | None) -> Histogram:
        """What came after `previous`; everything when that is None or of something that was made anew since."""
        if previous is None or np.any(previous.counts > self.counts):
            return self
        return Histogram(self.counts - previous.counts, self.total - previous.total, self.unit)

    def to_dict(self) -> dict[str, Any]:
        """Count, mean and the usual percentiles."""
        percentiles = {f"p{percent:g}": self.percentile(percent) for percent in (50, 90, 99, 99.9)}
        return {"count": self.count, "mean": self.mean, **percentiles, "maximum": self.maximum}

    def __repr__(self) -> str:
        return f"<penstock.Histogram count={self.count} p50={self.percentile(50):.3g} p99={self.percentile(99):.3g}>"
