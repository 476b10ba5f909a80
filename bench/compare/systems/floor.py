"""What this machine allows: two processes and one word of shared memory."""

from __future__ import annotations

import platform

from bench.compare.model import Side
from bench.compare.systems.base import Library

LATENCIES = ("latency-1k", "latency-10k")


class Floor(Library):
    """Nothing is stored: its latencies are those of the machine, its scheduler and its host."""

    name = package = "floor"
    sides = (
        Side(
            "floor",
            "A bare word of shared memory",
            "floor:Floor",
            "Python",
            "in process",
            "sender and receiver spin; nothing is stored, so this is what the machine allows",
            "none",
            workloads=LATENCIES,
        ),
    )

    def version(self) -> str:
        """Of the kernel: there is nothing else."""
        return f"{platform.system()} {platform.release()}"
