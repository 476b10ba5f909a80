"""Histograms count every value, and their percentiles are numpy's to within a bucket."""

from __future__ import annotations

import numpy as np
import pytest

from penstock._native.metrics import BUCKETS, bucket_of
from penstock.errors import InvalidArgumentError
from penstock.metrics import Histogram


def histogram(values: np.ndarray, unit: float = 1.0) -> Histogram:
    """As the engine counts."""
    counts = np.bincount([bucket_of(int(value)) for value in values], minlength=BUCKETS)
    return Histogram(counts, float(values.sum()) * unit, unit)


def test_buckets_are_in_order_and_an_eighth_wide() -> None:
    last = -1
    start = 0
    for value in [*range(5000), *(int(1.01**n) for n in range(860, 2500))]:
        bucket = bucket_of(value)
        assert last <= bucket < BUCKETS
        if bucket != last:
            start, last = value, bucket
        assert value <= start * 1.125
    assert bucket_of(-5) == 0
    assert bucket_of(2**36 - 1) == bucket_of(2**62) == BUCKETS - 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [0.3, 1.0, 2.5])
def test_percentiles(seed: int, spread: float) -> None:
    values = np.random.default_rng(seed).lognormal(10, spread, 20_000).astype(np.int64)
    found = histogram(values)
    assert found.count == len(values)
    assert found.mean == pytest.approx(values.mean())
    assert values.max() <= found.maximum <= values.max() * 1.125
    for percent in (1, 25, 50, 75, 90, 99, 99.9):
        assert found.percentile(percent) == pytest.approx(np.percentile(values, percent), rel=0.065)


def test_small_values_are_exact() -> None:
    found = histogram(np.array([1] * 98 + [5, 7]))
    assert [found.percentile(p) for p in (0, 50, 97, 99, 100)] == [1, 1, 1, 5, 7]
    assert found.cumulative([0, 1, 4, 5, 6, 7, 100]) == [0, 98, 98, 99, 99, 100, 100]


def test_cumulative_counts_are_within_a_bucket() -> None:
    values = np.random.default_rng(1).integers(1, 10**7, 10_000)
    bounds = [10.0**power for power in range(1, 8)]
    for bound, count in zip(bounds, histogram(values).cumulative(bounds), strict=True):
        assert (values <= bound / 1.125).sum() <= count <= (values <= bound * 1.125).sum()


def test_seconds() -> None:
    found = histogram(np.array([1_000_000, 2_000_000]), 1e-9)
    assert found.percentile(100) == pytest.approx(0.002, rel=0.065)
    assert found.mean == pytest.approx(0.0015)
    assert found.cumulative([0.0005, 0.0015, 0.01]) == [0, 1, 2]


def test_merging_and_what_came_since() -> None:
    first, second = histogram(np.array([1, 2, 3])), histogram(np.array([100, 200]))
    both = first + second
    assert both.count == 5
    assert both.since(first).count == 2
    assert both.since(first).mean == 150
    assert both.since(None) is both
    assert first.since(both) is first, "it was made anew"


def test_nothing() -> None:
    empty = Histogram.empty()
    assert (empty.count, empty.mean, empty.maximum, empty.percentile(99)) == (0, 0, 0, 0)
    assert set(empty.to_dict().values()) == {0}
    with pytest.raises(InvalidArgumentError, match="percent is 101"):
        empty.percentile(101)
