"""End to end across processes at a fixed rate, without coordinated omission.

Messages are due by a schedule that does not wait for anybody; each carries the time it was due, and the receiver
takes that from its own clock (one clock for all processes of a machine). What a slow system delays counts in full.

A sender waits for the next due time either asleep (it is then late by the scheduler's grain, and sends what became due
together) or awake, which takes a core from whoever else needs it. Clients of a server do better with the first on few
cores, libraries with the second; each client says which it uses.

A client that receives in a program of its own gives the latencies that this took by the same clock.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from bench.compare import usage
from bench.compare.child import Child
from bench.compare.model import Turn
from bench.compare.turn import Setting

SIZE = 100
CALM_RATE = 1000  # above it, a sender that sleeps does so for a while: waking for each message would take a core
GRAIN_S = 0.0005
WARM_S = 0.5
PATIENCE_S = 20.0  # after the last was sent
NS = 1_000_000_000


class Schedule:
    """Due times at `rate` a second. Iterating waits for each and yields its message; `wait_s` is for event loops."""

    def __init__(self, rate: int, count: int, asleep: bool) -> None:
        self.rate, self.count, self.asleep = rate, count, asleep
        self.start_ns = time.monotonic_ns()

    def due_ns(self, number: int) -> int:
        """When a message is due."""
        return self.start_ns + number * NS // self.rate

    def message(self, number: int) -> bytes:
        """What is sent: the due time, padded."""
        return b"%019d" % self.due_ns(number) + b"." * (SIZE - 19)

    def wait_s(self, number: int) -> float:
        """Until a message is due; 0 if it is late already."""
        return max(0, self.due_ns(number) - time.monotonic_ns()) / NS

    def batches(self) -> Iterator[list[bytes]]:
        """What became due together, for senders that pay for each request."""
        number = 0
        while number < self.count:
            if (left := self.wait_s(number)) > 0:
                time.sleep(max(left, GRAIN_S) if self.rate > CALM_RATE else left)
            due = min(self.count, (time.monotonic_ns() - self.start_ns) * self.rate // NS + 1)
            if due > number:
                yield [self.message(each) for each in range(number, due)]
                number = due

    def __iter__(self) -> Iterator[bytes]:
        for number in range(self.count):
            due = self.due_ns(number)
            while (left := due - time.monotonic_ns()) > 0:
                if self.asleep:
                    time.sleep(left / NS)
            yield self.message(number)


def run(setting: Setting) -> Turn:
    """Microseconds from due to received: median, and the rest in `more`."""
    with Child(setting.job(role="receive")) as receiver:
        receiver.ready()
        with Child(setting.job(role="send")) as sender:
            sender.ready()
            receiver.go()
            receiver.receive()
            before = usage.stolen_ticks()
            sender.go()
            sender.receive()
            found = receiver.receive(PATIENCE_S)
            stolen, ticks = (after - old for after, old in zip(usage.stolen_ticks(), before, strict=True))
    turn = Turn(found["p50_us"])
    turn.more = {name: found[name] for name in ("p50_us", "p99_us", "p999_us", "max_us", "count")}
    turn.more["stolen_percent"] = 100 * stolen / max(1, ticks)
    return turn


def work(client: Any, job: dict[str, Any], gate: Any) -> dict[str, Any]:
    """Either side. The receiver makes the topic and tells when it listens."""
    rate = job["options"]["rate"]
    warm = int(rate * WARM_S)
    count = int(rate * job["latency_seconds"]) + warm
    if job["role"] == "send":
        client.ready_to_send(job["topic"], rate, count)
        gate.wait()
        client.send_paced(job["topic"], Schedule(rate, count, client.paced_by_sleep))
        return {"sent": count}
    client.create(job["topic"])
    topic, own_clock = job["topic"], hasattr(client, "latencies")
    received = client.latencies(topic, count) if own_clock else taken(client.receive(topic))
    next(received)  # an empty list: it listens
    gate.wait()
    gate.say(event="listening")
    return histogram(received, count, warm)


def taken(messages: Iterator[list[bytes]]) -> Iterator[list[int]]:
    """Nanoseconds since each message was due, as it is received."""
    for received in messages:
        now = time.monotonic_ns()
        yield [now - int(message[:19]) for message in received]


def histogram(received: Iterator[list[int]], count: int, warm: int) -> dict[str, Any]:
    """Percentiles of the latencies of all but the first `warm` messages."""
    from hdrh.histogram import HdrHistogram

    latencies: list[int] = []
    for found in received:
        latencies += found
        if len(latencies) >= count:
            break
    kept = HdrHistogram(100, 60 * NS, 3)
    for latency in latencies[warm:]:
        kept.record_value(max(100, latency))
    marks = {"p50_us": 50, "p99_us": 99, "p999_us": 99.9}
    marked = {name: kept.get_value_at_percentile(mark) / 1000 for name, mark in marks.items()}
    return {**marked, "max_us": kept.get_max_value() / 1000, "count": kept.get_total_count()}
