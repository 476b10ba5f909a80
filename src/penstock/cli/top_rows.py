"""What `penstock top` shows: tables as plain values, made from two snapshots. No terminal in here."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.cli.output import bytes_text
from penstock.metrics import GroupMetrics, Histogram, Metrics, QueueMetrics, QueueRates, Rates

BARS = "▁▂▃▄▅▆▇█"
HISTORY = 16  # looks that a sparkline shows


@dataclass(frozen=True, slots=True)
class Cell:
    """`text` is shown in a `style`; `value` is what rows are sorted by."""

    text: str
    value: float | str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One topic, group or queue."""

    key: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """One tab. `sort`: the column that rows are sorted by at first."""

    name: str
    columns: tuple[str, ...]
    sort: int


TABLES = (
    Table(
        "Topics",
        ("TOPIC", "PARTS", "RECORDS", "SIZE", "IN/s", "TREND", "IN B/s", "OUT/s", "RATIO", "APPEND p99", "ERRORS"),
        4,
    ),
    Table(
        "Groups",
        ("GROUP", "MEMBERS", "LAG", "TREND", "BEHIND", "CONSUMED/s", "STORED/s", "CATCH UP", "SLOWEST", "REBALANCES"),
        2,
    ),
    Table(
        "Queues",
        (
            "QUEUE",
            "READY",
            "TREND",
            "IN FLIGHT",
            "DELAYED",
            "DEAD",
            "OLDEST",
            "SENT/s",
            "ACKED/s",
            "FAILED",
            "WORK p99",
        ),
        1,
    ),
)


class History:
    """The last values of each series, for its sparkline."""

    def __init__(self) -> None:
        self._values: defaultdict[tuple[str, str], deque[float]] = defaultdict(lambda: deque(maxlen=HISTORY))

    def add(self, kind: str, key: str, value: float) -> str:
        """One more value; the sparkline with it."""
        values = self._values[kind, key]
        values.append(value)
        return sparkline(values)


def sparkline(values: deque[float] | list[float]) -> str:
    """A bar for each value, as wide as the history."""
    most = max(values, default=0.0)
    bars = [BARS[min(7, int(value / most * 7.999))] if most > 0 and value > 0 else BARS[0] for value in values]
    return "".join(bars).rjust(HISTORY)


def count(value: float) -> str:
    """`950`, `12.3 k`, `4.5 M`."""
    for unit in ("", " k", " M", " G"):
        if abs(value) < 1000 or unit == " G":
            return f"{value:,.0f}" if not unit else f"{value:.1f}{unit}"
        value /= 1000
    return ""


def rate(value: float) -> str:
    """As `count`, with a decimal where it is small, and empty when it is nothing."""
    return "·" if value == 0 else f"{value:.1f}" if value < 10 else count(value)


def duration(seconds: float) -> str:
    """`850 µs`, `12 ms`, `3.4 s`, `2 h 05 min`."""
    if math.isinf(seconds):
        return "never"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    if seconds < 86_400:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"
    return f"{seconds // 86_400:.0f} d {seconds % 86_400 // 3600:02.0f} h"


def _p99(histogram: Histogram) -> Cell:
    value = histogram.percentile(99)
    return Cell(duration(value) if histogram.count else "·", value, "" if histogram.count else "dim")


def _rate(value: float, style: str = "green") -> Cell:
    return Cell(rate(value), value, style if value else "dim")


def _number(value: int, style: str = "") -> Cell:
    return Cell(count(value), value, style if value else "dim")


def topic_rows(metrics: Metrics, rates: Rates | None, history: History) -> Iterator[Row]:
    """The topics."""
    for name, topic in metrics.topics.items():
        now = rates.topics.get(name) if rates is not None else None
        in_per_s = now.records_appended_per_s if now else 0.0
        in_bytes = now.bytes_appended_per_s if now else 0.0
        ratio = topic.compression_ratio
        latency = now.append_latency if now and now.append_latency.count else topic.append_latency
        yield Row(
            name,
            (
                Cell(name, name, "bold"),
                _number(len(topic.partitions)),
                _number(topic.records),
                Cell(bytes_text(topic.size_bytes), topic.size_bytes),
                _rate(in_per_s),
                Cell(history.add("topic", name, in_per_s), in_per_s, "green"),
                Cell(bytes_text(in_bytes) if in_bytes else "·", in_bytes, "" if in_bytes else "dim"),
                _rate(now.records_read_per_s if now else 0.0, "cyan"),
                Cell(f"{ratio:.1f}", ratio, "dim" if ratio < 1.05 else ""),
                _p99(latency),
                _number(topic.failed, "bold red"),
            ),
        )  # fmt: skip


def _slowest(group: GroupMetrics) -> str:
    behind = max(group.partitions, key=lambda one: one.lag, default=None)
    if behind is None or not behind.lag:
        return "·"
    member = (behind.member_id or "nobody").rsplit("-", 4)[0]
    return f"{behind.topic}-{behind.partition} ({member})"


def _age(seconds: float | None) -> Cell:
    if seconds is None:
        return Cell("·", 0.0, "dim")
    return Cell(duration(seconds), seconds, "bold red" if seconds >= 60 else "yellow" if seconds >= 5 else "")


def _catch_up(seconds: float) -> Cell:
    if not seconds:
        return Cell("·", 0.0, "dim")
    return Cell(duration(seconds), seconds, "bold red" if math.isinf(seconds) else "")


def group_rows(metrics: Metrics, rates: Rates | None, history: History) -> Iterator[Row]:
    """The consumer groups."""
    for name, group in metrics.groups.items():
        now = rates.groups.get(name) if rates is not None else None
        catch_up = now.catch_up_s if now else 0.0
        slowest = _slowest(group)
        yield Row(
            name,
            (
                Cell(name, name, "bold"),
                _number(group.members, "" if group.members else "red"),
                _number(group.lag, "yellow"),
                Cell(history.add("group", name, group.lag), group.lag, "yellow"),
                _age(group.lag_s if group.lag else None),
                _rate(now.consumed_per_s if now else 0.0, "cyan"),
                _rate(now.stored_per_s if now else 0.0),
                _catch_up(catch_up),
                Cell(slowest, slowest, "dim" if slowest == "·" else ""),
                _number(group.rebalances),
            ),
        )  # fmt: skip


def queues_of(metrics: Metrics) -> dict[str, QueueMetrics]:
    """Queues by name, and share groups as `topic/group`."""
    shared = {f"{topic}/{group}": one for (topic, group), one in metrics.share_groups.items()}
    return {**metrics.queues, **shared}


def queue_rows(metrics: Metrics, rates: Rates | None, history: History) -> Iterator[Row]:
    """The queues and share groups."""
    found: dict[str, QueueRates] = {}
    if rates is not None:
        found = {**rates.queues, **{f"{topic}/{group}": one for (topic, group), one in rates.share_groups.items()}}
    for name, queue in queues_of(metrics).items():
        now = found.get(name)
        error_rate = now.error_rate if now else 0.0
        work = now.processing if now and now.processing.count else queue.processing
        waiting = queue.ready + queue.in_flight
        yield Row(
            name,
            (
                Cell(name, name, "bold"),
                _number(queue.ready, "yellow"),
                Cell(history.add("queue", name, waiting), waiting, "yellow"),
                _number(queue.in_flight, "cyan"),
                _number(queue.delayed),
                _number(queue.dead, "bold red"),
                _age(queue.age_of_oldest_s if waiting else None),
                _rate(now.sent_per_s if now else 0.0),
                _rate(now.acknowledged_per_s if now else 0.0, "cyan"),
                Cell(f"{error_rate:.0%}" if error_rate else "·", error_rate, "bold red" if error_rate else "dim"),
                _p99(work),
            ),
        )  # fmt: skip


ROWS = (topic_rows, group_rows, queue_rows)
