"""One turn: one side doing one workload once. What `run` of a workload gets to work with."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.compare import usage
from bench.compare.child import Child
from bench.compare.model import Side, Turn, Workload
from bench.compare.systems.base import Running, System


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done in a turn: about `seconds`, never more than `bytes` of values or `records` of them."""

    seconds: float = 0.8
    bytes: int = 250_000_000
    records: int = 2_500_000
    replay_bytes: int = 400_000_000
    latency_seconds: float = 3.0

    @classmethod
    def quick(cls) -> Sizes:
        """To see that everything runs."""
        return cls(0.1, 4_000_000, 20_000, 8_000_000, 0.3)


@dataclass(slots=True)
class Setting:
    """System, side and workload of a turn; `rate` is that of the round before, if there was one."""

    system: System
    side: Side
    workload: Workload
    running: Running
    sizes: Sizes
    scratch: Path
    topic: str
    rate: float | None = None

    def job(self, **more: Any) -> dict[str, Any]:
        """What a client process is told."""
        sizes = self.sizes
        return {
            "kind": self.workload.kind,
            "workload": self.workload.name,
            "client": self.side.client,
            "client_options": dict(self.side.options),
            "place": self.running.place,
            "options": dict(self.workload.options),
            "topic": self.topic,
            "seconds": sizes.seconds,
            "bytes": sizes.bytes,
            "records": sizes.records,
            "replay_bytes": sizes.replay_bytes,
            "latency_seconds": sizes.latency_seconds,
            "rate": self.rate,
            **more,
        }

    def stored_bytes(self) -> tuple[int, int]:
        """Disk of the topic, by its name in the paths, and of the whole directory."""
        own = sum(
            usage.disk_bytes(path) if path.is_dir() else path.stat().st_blocks * 512 for path in self._topic_paths()
        )
        return own, usage.disk_bytes(self.running.directory)

    def _topic_paths(self) -> list[Path]:
        found = []
        for folder, folders, names in os.walk(self.running.directory):
            found += [Path(folder, name) for name in [*folders, *names] if self.topic in name]
            folders[:] = [name for name in folders if self.topic not in name]
        return found


def alone(setting: Setting, **more: Any) -> tuple[dict[str, Any], Turn]:
    """One client process; the rate it reached, with the CPU time of client and server and the disk used."""
    with Child(setting.job(**more)) as child:
        child.ready()
        pids = setting.running.pids()
        cpu, disk = usage.cpu_s(pids), setting.stored_bytes()
        child.go()
        answer = child.receive()
        server_cpu = usage.cpu_s(pids) - cpu
    count = answer["count"]
    turn = Turn(count / answer["seconds"])
    turn.more = {
        "count": count,
        "seconds": answer["seconds"],
        "client_cpu_us": answer["cpu_s"] / count * 1e6,
        "server_cpu_us": server_cpu / count * 1e6,
    }
    if answer.get("wrote"):
        os.sync()  # what is mapped gets its blocks when it is written back
        own, whole = (after - before for after, before in zip(setting.stored_bytes(), disk, strict=True))
        grown = own if own > 0 else whole
        if grown > 0:  # a server that removes old files meanwhile makes the growth unknown
            turn.more["disk_bytes"] = grown / count
    return answer, turn


class Meter:
    """Wall and CPU time of a block in a client process."""

    def __enter__(self) -> Meter:
        self._cpu = usage.own_cpu_s()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self.cpu_s = usage.own_cpu_s() - self._cpu

    def answer(self, count: int, own_seconds: float | None = None, **more: Any) -> dict[str, Any]:
        """The message for the command; a tool that timed itself knows better."""
        return {"count": count, "seconds": own_seconds or self.seconds, "cpu_s": self.cpu_s, **more}
