"""Producing in batches."""

from __future__ import annotations

from typing import Any

from bench.compare.model import Turn
from bench.compare.turn import Meter, Setting, alone
from bench.compare.values import Load
from bench.compare.workloads.sizing import most, sized, spare


def run(setting: Setting) -> Turn:
    """Messages a second until all are acknowledged."""
    return alone(setting)[1]


def work(client: Any, job: dict[str, Any], gate: Any) -> dict[str, Any]:
    """In the client process."""
    load = Load.of(job["options"], most(job, job["options"].get("size", 100)))
    made = {"partitions": load.partitions, "lz4": load.lz4}
    trials: list[str] = []

    def trial(count: int) -> float:
        trials.append(spare(job, len(trials)))
        client.create(trials[-1], **made)
        some = load.sized(count)
        with Meter() as meter:
            client.write(trials[-1], some)
        return meter.seconds

    count = sized(job, load.size, trial, client.fixed)
    for topic in trials:
        client.drop(topic)
    client.create(job["topic"], **made)
    load = load.sized(count)
    client.ready(load)
    gate.wait()
    with Meter() as meter:
        own = client.write(job["topic"], load)
    return meter.answer(count, own, wrote=True)
