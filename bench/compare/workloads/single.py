"""Producing one message at a time, each acknowledged before the next."""

from __future__ import annotations

from typing import Any

from bench.compare.model import Turn
from bench.compare.turn import Meter, Setting, alone
from bench.compare.values import Load
from bench.compare.workloads.sizing import most, sized


def run(setting: Setting) -> Turn:
    """Messages a second."""
    return alone(setting)[1]


def work(client: Any, job: dict[str, Any], gate: Any) -> dict[str, Any]:
    """In the client process."""
    load = Load.of(job["options"], most(job, 100))
    client.create(job["topic"])
    count = sized(job, load.size, lambda trial: client.write_each(job["topic"], load.sized(trial)), client.fixed)
    load = load.sized(count)
    client.ready(load)
    gate.wait()
    with Meter() as meter:
        own = client.write_each(job["topic"], load)
    return meter.answer(count, own, wrote=True)
