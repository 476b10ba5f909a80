"""From nothing to the first message stored and read: an empty directory, a server to be started where there is one.

The client process stands ready with its packages imported; the time of a whole new process is reported beside it.
"""

from __future__ import annotations

import shutil
import time
from typing import Any

from bench.compare import usage
from bench.compare.child import Child
from bench.compare.model import Turn
from bench.compare.systems.base import Running
from bench.compare.turn import Setting

PATIENCE_S = 90.0


def run(setting: Setting) -> Turn:
    """Milliseconds. `resident_mib` is the server's memory then."""
    directory = setting.scratch / setting.topic
    running: Running | None = None
    try:
        place = {**setting.system.place(directory), "durability": setting.side.durability}
        with Child(setting.job(place=place)) as child:
            child.ready()
            started = time.perf_counter()
            running = setting.system.start(directory, setting.side.durability, wait=False, place=place)
            child.go()
            answer = child.receive()
            taken = time.perf_counter() - started
            with_process = time.perf_counter() - child.started
        more: dict[str, float] = {"with_client_process_ms": with_process * 1000, "attempts": answer["attempts"]}
        if running.servers:
            more["resident_mib"] = usage.memory_mib(running.pids())
        return Turn(taken * 1000, more)
    finally:
        if running is not None:
            running.stop()
        shutil.rmtree(directory, ignore_errors=True)


def work(client: Any, job: dict[str, Any], gate: Any) -> dict[str, Any]:
    """Try until it works."""
    gate.wait()
    attempts, deadline = 0, time.monotonic() + PATIENCE_S
    while True:
        attempts += 1
        try:
            client.first(job["topic"])
            return {"attempts": attempts}
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
