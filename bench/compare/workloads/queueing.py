"""A queue: receiving and acknowledging what lies in it."""

from __future__ import annotations

from typing import Any

from bench.compare.model import Turn
from bench.compare.turn import Meter, Setting, alone
from bench.compare.values import Load
from bench.compare.workloads.sizing import most, sized, spare


def run(setting: Setting) -> Turn:
    """Messages a second, received and acknowledged."""
    return alone(setting)[1]


def work(client: Any, job: dict[str, Any], gate: Any) -> dict[str, Any]:
    """In the client process."""
    load = Load.of(job["options"], most(job, 100))
    filled: list[str] = []

    def fill(count: int) -> str:
        filled.append(spare(job, len(filled)))
        client.fill(filled[-1], load.sized(count))
        return filled[-1]

    def trial(count: int) -> float:
        queue = fill(count)
        with Meter() as meter:
            client.take(queue, count)
        return meter.seconds

    count = sized(job, load.size, trial, client.fixed)
    queue = fill(count)
    gate.wait()
    with Meter() as meter:
        own = client.take(queue, count)
    return meter.answer(count, own)
