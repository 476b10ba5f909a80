"""How many records a turn takes: found by short trials, which also warm up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

TRIAL_S = 0.1
FIRST = 200


def most(job: dict[str, Any], size: int) -> int:
    """The largest count that the job allows for values of this size."""
    return int(max(1, min(job["records"], job["bytes"] // size)))


def spare(job: dict[str, Any], number: int) -> str:
    """A topic or queue for trials. Its name does not contain the turn's own, by which disk is counted."""
    return f"spare{number}of{job['topic'].removeprefix('turn')}"


def sized(job: dict[str, Any], size: int, trial: Callable[[int], None], *, pilot: bool = True) -> int:
    """The count that takes about the job's seconds. `trial(count)` does as much as that; it is called at least once.

    Where the rate is known from an earlier round one trial warms up. Without `pilot` there is none.
    """
    limit = most(job, size)
    if not pilot:
        return limit
    first = max(1, min(FIRST, limit))
    if job["rate"]:
        trial(max(first, min(limit, int(job["rate"] * TRIAL_S))))
        return max(first, min(limit, int(job["rate"] * job["seconds"])))
    count = first
    while True:
        started = time.perf_counter()
        trial(count)
        taken = time.perf_counter() - started
        if taken >= min(TRIAL_S, job["seconds"]) or count >= limit:
            return max(1, min(limit, int(count / taken * job["seconds"])))
        count = min(limit, count * 5)
