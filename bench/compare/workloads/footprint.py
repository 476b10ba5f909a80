"""CPU time and memory of messages written and read back, without the benchmark's own values in the way.

A small block of values is sent over and over, so that the client process holds little of its own. Memory is what the
processes keep for themselves (RssAnon) at its peak; pages of the page cache that are mapped belong to the system, and
are counted in `resident_mib` only.
"""

from __future__ import annotations

import threading
from typing import Any

from bench.compare import usage
from bench.compare.child import Child
from bench.compare.model import Turn
from bench.compare.turn import Meter, Setting
from bench.compare.values import Load

BLOCK = 10_000
PERIOD_S = 0.02


class Peak:
    """The largest sum of a memory field over process groups while the block runs."""

    def __init__(self, groups: list[int]) -> None:
        self._groups, self._over = groups, threading.Event()
        self.private_mib = self.resident_mib = 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(PERIOD_S):
            self._look()

    def _look(self) -> None:
        pids = [pid for group in self._groups for pid in usage.group_pids(group)]
        self.private_mib = max(self.private_mib, usage.memory_mib(pids, "RssAnon"))
        self.resident_mib = max(self.resident_mib, usage.memory_mib(pids, "VmRSS"))

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()


def run(setting: Setting) -> Turn:
    """CPU seconds of client and server for a million messages in and out."""
    with Child(setting.job()) as child:
        child.ready()
        servers = setting.running.pids()
        cpu = usage.cpu_s(servers)
        groups = [server.process.pid for server in setting.running.servers]
        with Peak([child.process.pid]) as client_peak, Peak(groups) as server_peak:
            child.go()
            answer = child.receive()
        server_cpu = usage.cpu_s(servers) - cpu
    millions = answer["count"] / 1e6
    turn = Turn((answer["cpu_s"] + server_cpu) / millions)
    turn.more = {
        "count": answer["count"],
        "client_cpu_s": answer["cpu_s"] / millions,
        "server_cpu_s": server_cpu / millions,
        "client_private_mib": client_peak.private_mib,
        "client_resident_mib": client_peak.resident_mib,
        "server_private_mib": server_peak.private_mib,
        "server_resident_mib": server_peak.resident_mib,
    }
    return turn


def work(client: Any, job: dict[str, Any], gate: Any) -> dict[str, Any]:
    """In the client process. Systems that manage few messages a second do fewer than a million."""
    count = min(job["records"], client.footprint_records)
    load = Load(count, distinct=BLOCK)
    client.create(job["topic"])
    client.ready(load)
    gate.wait()
    with Meter() as meter:
        client.write(job["topic"], load)
        client.read(job["topic"], load.count, None)
    return meter.answer(load.count)
