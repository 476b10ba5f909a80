"""How many records a turn takes: found by short trials, which also warm up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

TRIAL_S = 0.15
FIRST = 200
SETTLED = 1.5  # a trial that is not faster than the one before by this was not mostly set-up


def most(job: dict[str, Any], size: int) -> int:
    """The largest count that the job allows for values of this size."""
    return int(max(1, min(job["records"], job["bytes"] // size)))


def spare(job: dict[str, Any], number: int) -> str:
    """A topic or queue for trials. Its name does not contain the turn's own, by which disk is counted."""
    return f"spare{number}of{job['topic'].removeprefix('turn')}"


def sized(job: dict[str, Any], size: int, trial: Callable[[int], float | None], fixed: Mapping[str, int]) -> int:
    """The count that takes about the job's seconds. `trial(count)` does as much as that; it is called at least once.

    It may return the seconds of what matters; otherwise all of it is timed.

    Where the rate is known from an earlier round one trial warms up. A count in `fixed` for the kind of workload is
    taken without a trial.
    """
    limit = most(job, size)
    if job["kind"] in fixed:
        return min(limit, fixed[job["kind"]])
    first = max(1, min(FIRST, limit))
    if job["rate"]:
        trial(max(first, min(limit, int(job["rate"] * TRIAL_S / 2))))
        return max(first, min(limit, int(job["rate"] * job["seconds"])))
    count, before = first, 0.0
    while True:
        started = time.perf_counter()
        own = trial(count)
        taken = own or time.perf_counter() - started
        rate = count / taken
        if count >= limit or (taken >= min(TRIAL_S, job["seconds"]) and rate < before * SETTLED):
            return max(1, min(limit, int(rate * job["seconds"])))
        count, before = min(limit, count * 5), rate
