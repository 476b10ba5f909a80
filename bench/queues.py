"""Queues: throughput beside litequeue, Redis streams and SQLite by hand; backlog, expiry, processes, routing, state."""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import shutil
import socket
import sqlite3
import statistics
import subprocess
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import penstock
from bench.endurance import private_mib
from bench.measure import Result, versus
from bench.queue_workers import QueueWorkers
from bench.reading import plain
from bench.values import texts

BATCH = 100


def answer(path: str, out: Connection) -> None:
    """In another process: tell how long after its sending each message was received."""
    found = []
    with penstock.open(path, fsync="never") as broker:
        queue = broker.queue("wake")
        out.send("ready")
        while True:
            (message,) = queue.receive(1, wait=60)
            now = time.monotonic_ns()
            message.ack()
            if message.value == b"end":
                return out.send(found)
            found.append((now - int(message.value)) / 1000)


class Queues:
    """One directory; a queue for each measurement."""

    def __init__(self, directory: Path, count: int, rounds: int, quick: bool, full: bool) -> None:
        self.directory, self.count, self.rounds = directory, count, rounds
        self.quick, self.full = quick, full
        self.values = texts(count)
        self.groups = [f"g{number % 10_000}" for number in range(count)]
        self.broker = penstock.open(directory / "queues", fsync="never")
        self.number = 0

    def run(self) -> list[Result]:
        """The queue bars."""
        found = [*self._batches(), *self._one_by_one(), *self._backlogs(), self._expiry(), *self._workers()]
        found += [self._wake_up(), self._fifo(), self._routing(), *self._state()]
        self.broker.close()
        return found

    def _queue(self, **options: Any) -> penstock.Queue:
        self.number += 1
        return self.broker.queue(f"q{self.number}", retention=None, **options)

    # --- throughput ------------------------------------------------------------------------------------------------

    def through(self, **options: Any) -> int:
        """Every message sent, received and acknowledged."""
        queue = self._queue(**options)
        groups = self.groups if options.get("fifo") else None
        for first in range(0, self.count, 10_000):
            part = self.values[first : first + 10_000]
            queue.send_many(part, group_ids=groups[first : first + 10_000] if groups else None)
        seen = 0
        while messages := queue.receive(BATCH, wait=0):
            queue.ack_many(messages)
            seen += len(messages)
        assert seen == self.count
        self.broker.delete_queue(queue.name)
        return seen

    def _batches(self) -> list[Result]:
        litequeue = self._litequeue()
        name = f"queue: send_many, receive({BATCH}), ack_many"
        first = versus(f"{name} / litequeue", plain(self.through), plain(litequeue), 100, self.rounds, "messages/s")
        found = [
            Result(f"{name}, all three", first.ours, 1.5e6, "messages/s", first.ours / 1.5e6, 1.0),
            first,
        ]
        redis = RedisServer(self.directory)
        if redis.start():
            try:
                side = plain(lambda: redis.through(self.values[: self.count // 10]))
                found.append(
                    versus(f"{name} / Redis streams", plain(self.through), side, 20, self.rounds, "messages/s")
                )
            finally:
                redis.stop()
        else:
            print("Redis streams: absent (redis-server and the redis package are needed)")
        return found

    def _litequeue(self) -> Callable[[], int]:
        litequeue: Any = importlib.import_module("litequeue")
        part = [value.hex() for value in self.values[: max(1000, self.count // 100)]]

        def action() -> int:
            self.number += 1
            queue = litequeue.LiteQueue(str(self.directory / f"lite{self.number}.db"))
            for value in part:
                queue.put(value)
            while (message := queue.pop()) is not None:
                queue.done(message.message_id)
            return len(part)

        return action

    def one_by_one(self) -> int:
        """Send, receive, acknowledge, again and again."""
        queue = self._queue()
        part = self.values[: self.count // 10]
        for value in part:
            queue.send(value)
            queue.receive(1, wait=0)[0].ack()
        return len(part)

    def sqlite(self) -> int:
        """The same by hand: one transaction a step, WAL, synchronous NORMAL."""
        self.number += 1
        connection = sqlite3.connect(self.directory / f"hand{self.number}.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("CREATE TABLE q (id INTEGER PRIMARY KEY, body BLOB, visible REAL)")
        connection.execute("CREATE INDEX by_visible ON q (visible)")
        part = self.values[: max(1000, self.count // 100)]
        for value in part:
            connection.execute("INSERT INTO q (body, visible) VALUES (?, 0)", (value,))
            ((row, _),) = connection.execute(
                "UPDATE q SET visible = ? WHERE id = (SELECT id FROM q WHERE visible <= ? ORDER BY visible LIMIT 1) "
                "RETURNING id, body",
                (time.time() + 30, time.time()),
            ).fetchall()
            connection.execute("DELETE FROM q WHERE id = ?", (row,))
        connection.close()
        return len(part)

    def _one_by_one(self) -> list[Result]:
        name = "queue one at a time: send, receive(1), ack"
        sides = plain(self.one_by_one), plain(self.sqlite)
        found = versus(f"{name} / sqlite3 by hand", *sides, 10, self.rounds, "messages/s")
        return [Result(name, found.ours, 150_000, "messages/s", found.ours / 150_000, 1.0), found]

    def _fifo(self) -> Result:
        sides = plain(lambda: self.through(fifo=True)), plain(self.through)
        return versus("fifo queue, 10,000 groups / standard queue", *sides, 0.4, self.rounds, "messages/s")

    # --- backlog and time ------------------------------------------------------------------------------------------

    def _cost_with(self, backlog: int) -> float:
        """Microseconds to receive and acknowledge a message with so many waiting."""
        queue = self._queue()
        for _ in range(0, backlog, len(self.values)):
            queue.send_many(self.values[: min(len(self.values), backlog)])
        costs = []
        for _ in range(20):
            started = time.perf_counter()
            for _ in range(5):
                queue.ack_many(queue.receive(BATCH, wait=0))
            costs.append((time.perf_counter() - started) / 5 / BATCH * 1e6)
        self.broker.delete_queue(queue.name)
        return statistics.median(costs)

    def _backlogs(self) -> list[Result]:
        sizes = [10_000, self.count, *([50_000_000] if self.full else [])]
        costs = [self._cost_with(size) for size in sizes]
        return [
            Result(f"receive and ack, backlog {size:,} / 10,000", cost, costs[0], "us", cost / costs[0], 1.2, True)
            for size, cost in zip(sizes[1:], costs[1:], strict=True)
        ]

    def _expiry(self) -> Result:
        """All in flight, to run out in half a minute; one more that runs out soon: when is it there again?"""
        queue = self._queue(visibility_timeout=60.0)
        queue.send_many(self.values)
        taken = 0
        while taken < self.count:
            taken += len(queue.receive(1000, wait=0))
        late = []
        for _ in range(10):
            queue.send(b"soon")
            (message,) = queue.receive(1, wait=0, visibility_timeout=0.2)
            due = time.monotonic() + 0.2
            (message,) = queue.receive(1, wait=5)
            late.append((time.monotonic() - due) * 1000)
            message.ack()
        slow = statistics.median(late)
        self.broker.delete_queue(queue.name)
        return Result(f"redelivery after its time-out, {self.count:,} in flight", slow, 50, "ms", slow / 50, 1.0, True)

    # --- processes -------------------------------------------------------------------------------------------------

    def _workers(self) -> list[Result]:
        total = 20_000 if self.quick else max(2_000_000, 2 * self.count)
        return QueueWorkers(self.directory, self.values, total, max(1, self.rounds)).run()

    def _wake_up(self) -> Result:
        path = self.directory / "wake"
        context = multiprocessing.get_context("spawn")
        told, tell = context.Pipe()
        with penstock.open(path, fsync="never") as broker:
            queue = broker.queue("wake")
            child = context.Process(target=answer, args=(str(path), tell), daemon=True)
            child.start()
            told.recv()
            due = time.monotonic_ns()
            for _ in range(500 if self.quick else 20_000):
                due += 100_000  # 10,000 a second
                while time.monotonic_ns() < due:
                    pass
                queue.send(b"%d" % time.monotonic_ns())
            queue.send(b"end")
            found = told.recv()
            child.join()
        middle = statistics.median(found)
        return Result(
            "wake-up of a blocked receiver in another process at 10,000/s, p50",
            middle,
            30,
            "us",
            middle / 30,
            1.0,
            True,
        )

    # --- routing and state -----------------------------------------------------------------------------------------

    def _routing(self) -> Result:
        bindings = 100 if self.quick else 10_000
        exchange = self.broker.exchange("events", type="topic")
        queues = [self.broker.queue(f"routed{number}", retention=None) for number in range(10)]
        with self.broker._queues.transaction() as connection:  # one by one takes a commit each
            connection.executemany(
                "INSERT INTO bindings VALUES ('events', 'queue', ?, ?, '{}')",
                [(queues[number % 10].name, f"order.{number}.*") for number in range(bindings)],
            )
        exchange.bind(queues[0], "none")
        keys = [f"order.{number % bindings}.created" for number in range(self.count // 2)]
        rates = []
        for _ in range(max(1, self.rounds)):
            started = time.perf_counter()
            for value, key in zip(self.values, keys, strict=False):
                exchange.publish(value, key)
            rates.append(len(keys) / (time.perf_counter() - started))
        middle = statistics.median(rates)
        name = f"topic exchange, {bindings:,} bindings, one match each"
        return Result(name, middle, 300_000, "publishes/s", middle / 300_000, 1.0)

    def _state(self) -> list[Result]:
        name = self._queue().name
        self.broker.queue(name).send_many(self.values)
        before = private_mib()
        queue = self.broker.queue(name)
        while queue.receive(1000, wait=0):
            pass
        grown = private_mib() - before
        directory = self.broker.path / f"{queue.name}-0" / f"share-{queue.name}"
        size = sum(path.stat().st_blocks * 512 for path in directory.glob("*.words"))
        each = size / self.count
        memory = f"private memory of a queue with {self.count:,} messages in flight"
        return [
            Result("delivery state on disk for each message", each, 9, "bytes", each / 9, 1.0, True),
            Result(memory, grown, 1, "MiB", grown, 1.0, True),
        ]


class RedisServer:
    """A redis-server on loopback, with an append-only file that is not synced; started and ended here."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "redis"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> bool:
        """False when there is none on this machine."""
        if shutil.which("redis-server") is None or importlib.util.find_spec("redis") is None:
            return False
        self.directory.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        command += ["--appendonly", "yes", "--appendfsync", "no", "--save", ""]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.client = importlib.import_module("redis").Redis(port=self.port)
        for _ in range(100):
            try:
                self.client.ping()
                return True
            except Exception:
                time.sleep(0.05)
        raise RuntimeError("redis-server did not answer within 5 s")

    def stop(self) -> None:
        """End it."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait()

    def through(self, values: list[bytes]) -> int:
        """XADD, XREADGROUP, XACK, all pipelined by the batch."""
        self.client.delete("s")
        self.client.xgroup_create("s", "g", mkstream=True)
        for first in range(0, len(values), 1000):
            pipe = self.client.pipeline(transaction=False)
            for value in values[first : first + 1000]:
                pipe.xadd("s", {"b": value})
            pipe.execute()
        seen = 0
        while found := self.client.xreadgroup("g", "c", {"s": ">"}, count=BATCH):
            ids = [identity for identity, _ in found[0][1]]
            self.client.xack("s", "g", *ids)
            seen += len(ids)
        return seen
