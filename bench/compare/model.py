"""What is measured: systems, the sides they are used from, workloads, and the figures of one turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

CACHE = "page cache"  # survives the death of the process, not of the machine
DISK = "fsync"  # on the disk before it is acknowledged


class Absent(Exception):
    """A system that cannot be had on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Side:
    """One way of using a system: a client with its settings.

    `client` is "module:Class" below `bench.compare.clients`. `where` is "in process" or "socket". `settings` says in
    words what was tuned. `tuned=False` marks defaults, which are measured on the plainest workloads only.
    `workloads` restricts a side to some of what its client can do.
    """

    name: str
    label: str
    client: str
    language: str
    where: str
    settings: str
    durability: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tuned: bool = True
    workloads: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Plain values for the results."""
        kept = ("label", "language", "where", "settings", "durability", "tuned")
        return {name: value for name, value in asdict(self).items() if name in kept}


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the results. `kind` names the module below `bench.compare.workloads` that runs it.

    `unit` is what `figure` counts; `less_is_better` for times. `plain` workloads are measured for default settings too.
    """

    name: str
    title: str
    kind: str
    unit: str
    options: Mapping[str, Any] = field(default_factory=dict)
    less_is_better: bool = False
    plain: bool = False
    durability: str = CACHE


@dataclass(slots=True)
class Turn:
    """The figures of one turn. `figure` is the one that is compared; `more` holds the rest by name, units last."""

    figure: float
    more: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"figure": rounded(self.figure), **{name: rounded(value) for name, value in self.more.items()}}


def rounded(value: float) -> float:
    """Five significant digits: more would be noise, and the results are kept in the repository."""
    return float(f"{value:.5g}")
