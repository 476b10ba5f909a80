"""The workloads, in the order in which they run."""

from __future__ import annotations

from bench.compare.model import DISK, Workload

RATE = "messages/s"


def _produce(name: str, size: int, words: str, *, plain: bool = False) -> Workload:
    return Workload(name, f"produce {words} in batches", "writing", RATE, {"size": size}, plain=plain)


WORKLOADS = (
    _produce("produce-100", 100, "100 B", plain=True),
    _produce("produce-1k", 1000, "1 KB"),
    _produce("produce-10k", 10_000, "10 KB"),
    _produce("produce-1m", 1_000_000, "1 MB"),
    Workload("json-lz4", "produce JSON, LZ4", "writing", RATE, {"size": 250, "json": True, "lz4": True}),
    Workload("keyed", "produce 100 B with keys over 8 partitions", "writing", RATE, {"keyed": True, "partitions": 8}),
    Workload("one-by-one", "produce 100 B, each acknowledged before the next", "single", RATE),
    Workload("fsync-each", "the same, each on the disk", "single", RATE, durability=DISK),
    Workload("processes-in", "produce 100 B from 2 processes", "parallel", RATE, {"role": "write", "processes": 2}),
    Workload("consume", "consume 100 B", "reading", RATE, plain=True),
    Workload("consume-group", "consume 100 B in a group that commits", "reading", RATE, {"group": True}),
    Workload("processes-out", "consume 100 B by 2 processes", "parallel", RATE, {"role": "read", "processes": 2}),
    Workload("replay", "replay of a log that is not in memory (1 KB)", "replay", RATE, {"size": 1000}),
    Workload("queue", "queue: receive and acknowledge 100 B", "queueing", RATE),
    Workload("latency-1k", "end to end at 1,000/s", "latency", "us p50", {"rate": 1000}, less_is_better=True),
    Workload("latency-10k", "end to end at 10,000/s", "latency", "us p50", {"rate": 10_000}, less_is_better=True),
    Workload("start", "start to first message stored and read", "starting", "ms", less_is_better=True),
    Workload(
        "footprint",
        "CPU of a million 100 B messages in and out",
        "footprint",
        "CPU s",
        less_is_better=True,
    ),
    Workload("metrics-cost", "CPU time that Penstock's metrics cost", "metering", "%", less_is_better=True),
)


def by_name(names: list[str] | None) -> list[Workload]:
    """The workloads of these names, in order; all without names. Raises `KeyError` for an unknown one."""
    known = {workload.name: workload for workload in WORKLOADS}
    if names is None:
        return list(WORKLOADS)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise KeyError(f"unknown workloads {unknown}; there are {', '.join(known)}")
    return [workload for workload in WORKLOADS if workload.name in names]
