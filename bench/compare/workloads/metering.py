"""What Penstock's own metrics cost: CPU time with and without them, turn and turn about in one process."""

from __future__ import annotations

from typing import Any

from bench.compare.child import Child
from bench.compare.model import Turn
from bench.compare.turn import Setting

TURNS, COUNT = 7, 20_000


def run(setting: Setting) -> Turn:
    """Percent more CPU time, of the path on which they cost most."""
    with Child(setting.job()) as child:
        child.ready()
        child.go()
        costs = child.receive()["costs"]
    percents = {f"{name}_percent": (ratio - 1) * 100 for name, ratio in costs.items()}
    return Turn(max(percents.values()), percents)


def work(client: Any, job: dict[str, Any], gate: Any) -> dict[str, Any]:
    """In the client process."""
    quick = job["records"] < 100_000
    gate.wait()
    return {"costs": client.metrics_cost(1 if quick else TURNS, 2000 if quick else COUNT)}
