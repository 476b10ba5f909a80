"""Consuming from the beginning."""

from __future__ import annotations

from typing import Any

from bench.compare.model import Turn
from bench.compare.turn import Meter, Setting, alone
from bench.compare.values import Load
from bench.compare.workloads.sizing import most, sized, spare


def run(setting: Setting) -> Turn:
    """Messages a second."""
    return alone(setting)[1]


def work(client: Any, job: dict[str, Any], gate: Any) -> dict[str, Any]:
    """In the client process: fill, read for trial, fill what the rate asks for, read that."""
    load = Load.of(job["options"], most(job, 100))
    group = job["topic"] if job["options"].get("group") else None
    filled: list[str] = []

    def fill(count: int) -> str:
        filled.append(spare(job, len(filled)))
        client.create(filled[-1])
        client.write(filled[-1], load.sized(count))
        return filled[-1]

    def trial(count: int) -> float:
        topic = fill(count)
        with Meter() as meter:
            client.read(topic, count, group and f"{group}{len(filled)}")
        return meter.seconds

    count = sized(job, load.size, trial, client.fixed)
    topic = fill(count)
    gate.wait()
    with Meter() as meter:
        own = client.read(topic, count, group)
    for name in filled:
        client.drop(name)
    return meter.answer(count, own)
