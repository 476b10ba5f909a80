"""Replay of a log that memory does not hold: filled, written back, taken out of the page cache, read from the disk.

A log larger than memory leaves the cache before it is read again; dropping it has the same effect at a size that a
benchmark can afford. The rate is bounded by the disk, the same for all. Each page is read once.
"""

from __future__ import annotations

from typing import Any

from bench.compare import usage
from bench.compare.child import Child
from bench.compare.cold import drop_cached
from bench.compare.model import Turn
from bench.compare.turn import Meter, Setting
from bench.compare.values import Load


def run(setting: Setting) -> Turn:
    """Messages a second."""
    with Child(setting.job(role="fill")) as child:
        child.ready()
        child.go()
        count = child.receive()["count"]
    drop_cached(setting.running.directory)
    with Child(setting.job(role="read", share=count)) as child:
        child.ready()
        cpu = usage.cpu_s(setting.running.pids())
        child.go()
        answer = child.receive()
        server_cpu = usage.cpu_s(setting.running.pids()) - cpu
    size = setting.workload.options["size"]
    turn = Turn(count / answer["seconds"])
    turn.more = {
        "count": count,
        "seconds": answer["seconds"],
        "mb_per_s": count * size / answer["seconds"] / 1e6,
        "client_cpu_us": answer["cpu_s"] / count * 1e6,
        "server_cpu_us": server_cpu / count * 1e6,
    }
    return turn


def work(client: Any, job: dict[str, Any], gate: Any) -> dict[str, Any]:
    """Fill in one process, read in another."""
    size = job["options"]["size"]
    if job["role"] == "fill":
        gate.wait()
        count = max(1, min(job["replay_bytes"], client.replay_bytes) // size)
        client.create(job["topic"])
        client.write(job["topic"], Load(int(count), size))
        return {"count": int(count)}
    gate.wait()
    with Meter() as meter:
        own = client.replay(job["topic"], job["share"])
    return meter.answer(job["share"], own)
