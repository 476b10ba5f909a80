"""The operations that workloads ask of a client; each has only those that its system has a notion of."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from bench.compare.values import Load

Place = Mapping[str, str]

# kind of workload -> the operations it needs
NEEDS = {
    "writing": ("write",),
    "single": ("write_each",),
    "reading": ("write", "read"),
    "queueing": ("fill", "take"),
    "latency": ("send_paced",),
    "parallel": ("write", "read"),
    "replay": ("write", "replay"),
    "starting": ("first",),
    "footprint": ("write", "read"),
    "metering": ("metrics_cost",),
}


class Client:
    """Made in a process of its own for every turn. A subclass has those of the operations that make sense:

    - `write(topic, load)`: everything in batches, stored at the place's durability when it returns
    - `write_each(topic, load)`: each acknowledged before the next
    - `read(topic, count, group)`: that many values from the beginning, as Python objects; `group` None or a name
    - `replay(topic, count)`: the same in the cheapest way there is
    - `fill(queue, load)`, `take(queue, count)`: a queue; received and acknowledged
    - `send_paced(topic, schedule)` and `receive(topic)`, or `latencies(topic, count)`: see `workloads.latency`
    - `first(topic)`: one message stored and read; raises while the server is not up yet

    An operation that times itself returns its seconds, the others `None`.
    """

    requires: ClassVar[tuple[str, ...]] = ()  # modules that must be importable
    missing: ClassVar[Mapping[str, str]] = {}  # kind of workload or workload -> why the system has no notion of it
    paced_by_sleep: ClassVar[bool] = True  # how a sender waits between messages; see `workloads.latency`
    footprint_records: ClassVar[int] = 1_000_000  # fewer for systems that take minutes for a million
    replay_bytes: ClassVar[int] = 1 << 62
    fixed: Mapping[str, int] = MappingProxyType(
        {}
    )  # kind of workload -> a count instead of trials, which would cost much

    def __init__(self, place: Place, **options: Any) -> None:
        self.place, self.options = place, options
        for name in self.requires:
            importlib.import_module(name)

    @classmethod
    def excuse(cls, kind: str, workload: str, options: Mapping[str, Any]) -> str | None:
        """Why there is no such thing with these options; None if there is."""
        return not_for(cls, kind, workload)

    def create(self, topic: str, partitions: int = 1, lz4: bool = False) -> None:
        """Make an empty topic; nothing where topics need no making."""

    def ready(self, load: Load) -> None:
        """Make the values before the clock starts."""
        _ = load.parts

    def ready_to_send(self, topic: str, rate: int, count: int) -> None:
        """Set up before the schedule of `send_paced` begins, where that takes long."""

    def drop(self, topic: str) -> None:
        """Remove a topic to free its disk; nothing where the directory is thrown away."""

    def close(self) -> None:
        """Let go of everything."""


def client_class(path: str) -> type[Client]:
    """Of "module:Class"."""
    module, _, name = path.partition(":")
    found: type[Client] = getattr(importlib.import_module(f"bench.compare.clients.{module}"), name)
    return found


def lacking(path: str) -> str | None:
    """Why a client cannot be used here; None if it can."""
    absent = [name for name in client_class(path).requires if importlib.util.find_spec(name) is None]
    return f"Python package {', '.join(absent)} is not installed" if absent else None


def not_applicable(path: str, kind: str, workload: str, options: Mapping[str, Any]) -> str | None:
    """Why a client has no notion of a workload; None if it has."""
    return client_class(path).excuse(kind, workload, options)


def not_for(client: type[Client], kind: str, workload: str) -> str | None:
    """The reason by the class alone: what it says is missing, or an operation that it does not have."""
    for key in (workload, kind):
        if key in client.missing:
            return client.missing[key]
    return None if all(hasattr(client, name) for name in NEEDS[kind]) else "no such operation"
