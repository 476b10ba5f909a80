"""What was aimed at, computed from the results: nobody's word, one line each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bench.compare.results import best, figure

Results = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bar:
    """`ours` and `peer` are figures in `unit`; `measured` their ratio, or `ours` alone. None: no result."""

    name: str
    unit: str
    ours: float | None
    peer: float | None
    measured: float | None
    limit: float
    at_most: bool

    @property
    def verdict(self) -> str:
        """ "reached", "short" or "no result"."""
        if self.measured is None:
            return "no result"
        return "reached" if (self.measured <= self.limit if self.at_most else self.measured >= self.limit) else "short"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "verdict": self.verdict}


Pick = tuple[str, ...]
LISTS: Pick = ("penstock",)
ARRAYS: Pick = ("penstock-columns",)
OBJECTS: Pick = ("penstock",)
VALUES: Pick = ("penstock-values",)
COLUMNS: Pick = ("penstock-columns",)
CONFLUENT: Pick = ("confluent", "confluent-batch")
JAVA: Pick = ("kafka-java",)
KAFKA: Pick = ("confluent", "kafka-java", "kafka-python", "aiokafka")

# how a million messages go in and out: as what they come out, and the side that does it so
WHOLE = (
    ("lists in, Record objects out", "penstock"),
    ("lists in, bytes objects out", "penstock-values"),
    ("arrays in, columns out", "penstock-columns"),
)

# name, workload, ours, peer, times
RATIOS: tuple[tuple[str, str, Pick, Pick, float], ...] = (
    ("produce 100 B: lists / confluent-kafka", "produce-100", LISTS, CONFLUENT, 20),
    ("produce 100 B: arrays / confluent-kafka", "produce-100", ARRAYS, CONFLUENT, 20),
    ("produce 100 B: lists / Kafka's Java tool", "produce-100", LISTS, JAVA, 10),
    ("produce 100 B: arrays / Kafka's Java tool", "produce-100", ARRAYS, JAVA, 10),
    ("consume 100 B: columns / confluent-kafka", "consume", COLUMNS, CONFLUENT, 30),
    ("consume 100 B: bytes objects / confluent-kafka", "consume", VALUES, CONFLUENT, 30),
    ("consume 100 B: Record objects / confluent-kafka", "consume", OBJECTS, CONFLUENT, 30),
    ("consume 100 B: columns / Kafka's Java tool", "consume", COLUMNS, JAVA, 5),
    ("consume 100 B: bytes objects / Kafka's Java tool", "consume", VALUES, JAVA, 5),
    ("queue, receive and acknowledge / RabbitMQ classic, pika", "queue", LISTS, ("rabbitmq-classic",), 50),
    ("queue, receive and acknowledge / NATS work queue", "queue", LISTS, ("nats",), 10),
    ("queue, receive and acknowledge / Redis streams", "queue", LISTS, ("redis",), 20),
    ("produce 100 B: arrays / Chronicle Queue (Java)", "produce-100", ARRAYS, ("chronicle",), 5),
    ("produce 100 B: lists / Chronicle Queue (Java)", "produce-100", LISTS, ("chronicle",), 5),
    ("consume 100 B: columns / Chronicle Queue (Java)", "consume", COLUMNS, ("chronicle",), 1),
)


def bars(results: Results) -> list[Bar]:
    """Every bar, reached or not."""
    found = [_times(results, *line) for line in RATIOS]
    for name, mark in (("p50_us", "p50"), ("p99_us", "p99")):
        label = f"end to end at 10,000/s, {mark}: Penstock / Kafka's best client"
        ours = figure(results, "latency-10k", "penstock", name)
        theirs = min((value for side in KAFKA if (value := figure(results, "latency-10k", side, name))), default=None)
        found.append(_share(label, "us", ours, theirs, 1 / 50))
    start = figure(results, "start", "penstock")
    found.append(Bar("start to first message stored and read", "ms", start, None, start, 50, True))
    for words, side in WHOLE:
        for peer, name in (("Kafka's broker alone", "server_cpu_s"), ("Kafka's client and broker", "figure")):
            label = f"CPU per million in and out: all of Penstock, {words} / {peer}"
            ours, theirs = _pair(results, "footprint", side, _broker(results), "figure", name)
            found.append(_share(label, "s", ours, theirs, 0.1))
    names = ("client_private_mib", "server_private_mib")
    ours, theirs = _pair(results, "footprint", "penstock", _broker(results), *names)
    found.append(_share("private memory: the whole Penstock process / Kafka's broker", "MiB", ours, theirs, 0.1))
    metrics = figure(results, "metrics-cost", "penstock")
    found.append(Bar("cost of metrics, the worst of the hot paths", "%", metrics, None, metrics, 3, True))
    return found


def table(found: list[Bar]) -> str:
    """Markdown."""
    lines = ["| bar | Penstock | peer | unit | measured | aim | |", "|---|---:|---:|---|---:|---:|---|"]
    for bar in found:
        sign = "<=" if bar.at_most else ">="
        numbers = [_number(bar.ours), _number(bar.peer), bar.unit, _number(bar.measured), f"{sign} {bar.limit:g}"]
        lines.append(f"| {bar.name} | {' | '.join(numbers)} | {bar.verdict} |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _broker(results: Results) -> str | None:
    return best(results, "footprint", KAFKA)


def _pair(
    results: Results, workload: str, ours: str, peer: str | None, our_name: str, peer_name: str
) -> tuple[float | None, float | None]:
    return figure(results, workload, ours, our_name), peer and figure(results, workload, peer, peer_name)  # type: ignore[return-value]


def _times(results: Results, name: str, workload: str, ours: Pick, peer: Pick, limit: float) -> Bar:
    first, second = (_best_figure(results, workload, sides) for sides in (ours, peer))
    ratio = first / second if first and second else None
    return Bar(name, "messages/s", first, second, ratio, limit, False)


def _best_figure(results: Results, workload: str, sides: Pick) -> float | None:
    side = best(results, workload, sides)
    return None if side is None else figure(results, workload, side)


def _share(name: str, unit: str, ours: float | None, peer: float | None, limit: float) -> Bar:
    ratio = ours / peer if ours is not None and peer else None
    return Bar(name, unit, ours, peer, ratio, limit, True)
