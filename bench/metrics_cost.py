"""What counting costs: each operation with and without it, turn and turn about in one process.

`python -m bench.metrics_cost`. The figure is CPU time of this thread with metrics over CPU time without, the median of
many short turns; the aim is at most 1.03.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import penstock
from bench.environment import environment
from bench.values import texts

Action = Callable[[], object]
AIM = 1.03


class Side:
    """A directory of its own, counting or not, with an action for each operation."""

    def __init__(self, directory: Path, metrics: bool, count: int) -> None:
        self.broker = penstock.open(directory, fsync="never", metrics=metrics)
        self.values = texts(count)
        self.topic = self.broker.create_topic("topic", retention_bytes=1 << 28, segment_bytes=1 << 26)
        self.broker.create_topic("read")
        self.producer = self.broker.producer(linger_ms=3_600_000)
        with self.broker.producer() as producer:
            producer.send_many("read", self.values)
        self.consumer = self.broker.consumer("read")
        self.queue = self.broker.queue("queue", retention=None)

    def append(self) -> None:
        """Storing one by one."""
        append = self.topic.append
        for value in self.values[:5_000]:
            append(value)

    def produce(self) -> None:
        """Storing in batches of the default size."""
        self.producer.send_many("topic", self.values)
        self.producer.flush()

    def produce_small(self) -> None:
        """Storing in batches of 100."""
        for start in range(0, len(self.values), 100):
            self.producer.send_many("topic", self.values[start : start + 100])
            self.producer.flush()

    def _rewind(self) -> None:
        self.consumer.seek_to_beginning()

    def poll(self) -> None:
        """Reading 500 at a time."""
        self._rewind()
        left = len(self.values)
        while left:
            left -= len(self.consumer.poll(timeout=0))

    def poll_one(self) -> None:
        """Reading one at a time by poll."""
        self._rewind()
        poll = self.consumer.poll
        for _ in self.values[:5_000]:
            poll(1, 0)

    def iterate(self) -> None:
        """Reading by iteration."""
        self._rewind()
        following = self.consumer._next_ready
        while following() is not None:
            pass

    def columns(self) -> None:
        """Reading as columns."""
        self._rewind()
        for _ in range(20):
            self._rewind()
            while self.consumer.poll_batches(timeout=0):
                pass

    def queue_send(self) -> None:
        """Sending messages one by one, and receiving them."""
        send, receive = self.queue.send, self.queue.receive
        values = self.values[:4_000]
        for value in values:
            send(value)
        for _ in values:
            receive(1)[0].ack()

    def queue_acks(self) -> None:
        """Receiving 100 at a time, acknowledging them together."""
        self.queue.send_many(self.values)
        left = len(self.values)
        while left:
            messages = self.queue.receive(100)
            left -= len(messages)
            self.queue.ack_many(messages)


OPERATIONS = (
    "append", "produce", "produce_small", "poll", "poll_one", "iterate", "columns", "queue_send", "queue_acks",
)  # fmt: skip


def timed(action: Action) -> float:
    """CPU seconds of this thread."""
    started = time.thread_time()
    action()
    return time.thread_time() - started


def cost(sides: tuple[Side, Side], name: str, seconds: float) -> float:
    """Time with metrics over time without, of pairs that take turns in going first, for so many seconds."""
    with_, without = (getattr(side, name) for side in sides)
    ratios = []
    with_(), without()
    began = time.monotonic()
    while len(ratios) < 2 or time.monotonic() - began < seconds:
        gc.collect()
        pair = (timed(with_), timed(without)) if len(ratios) % 2 else (timed(without), timed(with_))[::-1]
        ratios.append(pair[0] / pair[1])
    return statistics.median(ratios)


def snapshot_ms(directory: Path, partitions: int) -> tuple[float, float]:
    """CPU milliseconds of `Broker.metrics` with so many partitions and a group that is behind in all of them: the first
    one, and the median of the next ten while the group moves on."""
    with penstock.open(directory, fsync="never") as broker:
        broker.create_topic("wide", partitions=partitions)
        with broker.producer() as producer:
            for number in range(partitions):
                producer.send_many("wide", [b"v" * 100] * 20, partition=number)
        with broker.consumer("wide", group="g", max_poll_records=partitions) as consumer:
            consumer.poll()
            first = timed(broker.metrics)
            later = []
            for _ in range(10):
                consumer.poll()
                later.append(timed(broker.metrics))
    return first * 1000, statistics.median(later) * 1000


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two turns: only to see that it runs")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each operation")
    parser.add_argument("--only", nargs="*", choices=OPERATIONS, default=OPERATIONS)
    options = parser.parse_args()
    count, seconds = (2_000, 0.0) if options.quick else (20_000, options.seconds)
    with tempfile.TemporaryDirectory() as name:
        print(", ".join(f"{what} {value}" for what, value in environment(Path(name)).items()))
        sides = Side(Path(name) / "with", True, count), Side(Path(name) / "without", False, count)
        for operation in options.only:
            ratio = cost(sides, operation, seconds)
            print(f"{operation:15} x{ratio:.3f}  {'ok' if ratio <= AIM else 'over'} (aim: {AIM})", flush=True)
        for side in sides:
            side.producer.close()
            side.broker.close()
        partitions = 50 if options.quick else 1_000
        first, later = snapshot_ms(Path(name) / "wide", partitions)
        print(f"a snapshot of {partitions:,} partitions: {later:.1f} ms (the first: {first:.1f} ms)")


if __name__ == "__main__":
    main()
